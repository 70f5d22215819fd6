// SPDX-License-Identifier: Apache-2.0
//! The cluster's certificates and kubeconfigs: one authority for everything, one more for the API server's front proxy. For tests: certificates of other authorities.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use crate::state::{self, Lab};
use crate::topology::API_PORT;

/// Whom a certificate is for.
struct Subject<'a> {
    name: &'a str,
    organization: Option<&'a str>,
    addresses: Vec<String>,
}

/// Writes every certificate and kubeconfig that control plane and nodes need.
pub(crate) fn write_all(lab: &Lab) -> Result<()> {
    let authority = authority(lab, "ca", "kubernetes")?;
    let front = self::authority(lab, "front-proxy-ca", "front-proxy")?;
    let topology = &lab.spec.topology;
    let control: Vec<String> = topology.control().iter().map(ToString::to_string).collect();

    let names = ["127.0.0.1", "::1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut served: Vec<String> = names.into_iter().chain(topology.api_services()).map(str::to_owned).collect();
    served.push("kubernetes.default.svc.cluster.local".to_owned());
    served.extend(control.iter().cloned());
    issue(lab, &authority, "apiserver", Subject { name: "kube-apiserver", organization: None, addresses: served })?;
    let to_kubelets = Subject { name: "kube-apiserver", organization: Some("system:masters"), addresses: vec![] };
    issue(lab, &authority, "apiserver-kubelet", to_kubelets)?;
    issue(lab, &front, "front-proxy", Subject { name: "front-proxy", organization: None, addresses: vec![] })?;
    let accounts = KeyPair::generate()?;
    state::write(&lab.pki("service-accounts.key"), accounts.serialize_pem())?;
    state::write(&lab.pki("service-accounts.pub"), accounts.public_key_pem())?;

    let inside = server(control.first().map_or("127.0.0.1", String::as_str), API_PORT);
    let components = [
        ("admin", "kubernetes-admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("kube-proxy", "system:kube-proxy", None),
    ];
    for (file, name, organization) in components {
        issue(lab, &authority, file, Subject { name, organization, addresses: vec![] })?;
        kubeconfig(lab, file, &inside, &lab.pki(&format!("{file}.kubeconfig")))?;
    }
    for place in topology.places() {
        let addresses = place.addresses.iter().map(ToString::to_string).chain([place.name.clone()]).collect();
        let user = format!("system:node:{}", place.name);
        issue(lab, &authority, &place.name, Subject { name: &user, organization: Some("system:nodes"), addresses })?;
        kubeconfig(lab, &place.name, &inside, &lab.pki(&format!("{}.kubeconfig", place.name)))?;
    }
    Ok(())
}

/// For tests: another authority, as PEM: certificate and key.
pub fn new_authority(name: &str) -> Result<(String, String)> {
    let (issuer, certificate) = sign_authority(name)?;
    Ok((certificate, issuer.key().serialize_pem()))
}

/// For tests: a client's certificate and key, signed by an authority that is given as PEM, as [`new_authority`] answers and Secrets hold it.
pub fn for_client(name: &str, authority: &str, authority_key: &str) -> Result<(String, String)> {
    let issuer = KeyPair::from_pem(authority_key).context("the authority's key")?;
    let issuer = Issuer::from_ca_cert_pem(authority, issuer).context("the authority's certificate")?;
    sign(&issuer, Subject { name, organization: None, addresses: vec![] })
}

/// Writes the administrator's kubeconfig for this machine, which reaches the API server at a forwarded port.
pub(crate) fn write_admin_kubeconfig(lab: &Lab, port: u16) -> Result<()> {
    kubeconfig(lab, "admin", &server("127.0.0.1", port), &lab.kubeconfig())
}

fn server(host: &str, port: u16) -> String {
    if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") }
}

fn authority(lab: &Lab, file: &str, name: &str) -> Result<Issuer<'static, KeyPair>> {
    let (issuer, certificate) = sign_authority(name)?;
    state::write(&lab.pki(&format!("{file}.crt")), certificate)?;
    state::write(&lab.pki(&format!("{file}.key")), issuer.key().serialize_pem())?;
    Ok(issuer)
}

fn sign_authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = distinguished(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key).with_context(|| format!("cannot sign the authority '{name}'"))?;
    Ok((Issuer::new(params, key), certificate.pem()))
}

fn issue(lab: &Lab, issuer: &Issuer<'_, KeyPair>, file: &str, subject: Subject<'_>) -> Result<()> {
    let (certificate, key) = sign(issuer, subject)?;
    state::write(&lab.pki(&format!("{file}.crt")), certificate)?;
    state::write(&lab.pki(&format!("{file}.key")), key)
}

/// A certificate and its key, as PEM.
fn sign(issuer: &Issuer<'_, KeyPair>, subject: Subject<'_>) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(subject.addresses)?;
    params.distinguished_name = distinguished(subject.name, subject.organization);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer).with_context(|| format!("cannot sign for '{}'", subject.name))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn distinguished(name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        distinguished.push(DnType::OrganizationName, organization);
    }
    distinguished
}

/// A kubeconfig embeds its certificates, so that a copy works wherever the server is reachable.
fn kubeconfig(lab: &Lab, user: &str, server: &str, to: &Path) -> Result<()> {
    let context = lab.spec.name.as_str();
    let held = |file: &str| -> Result<String> {
        let path = lab.pki(file);
        Ok(BASE64_STANDARD.encode(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": {"server": server, "certificate-authority-data": held("ca.crt")?}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": held(&format!("{user}.crt"))?,
            "client-key-data": held(&format!("{user}.key"))?,
        }}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
    });
    state::write(to, serde_json::to_string_pretty(&config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_out_of_pem_signs() {
        let (authority, key) = new_authority("one").unwrap();
        let (certificate, own) = for_client("somebody", &authority, &key).unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----") && own.contains("PRIVATE KEY"), "{certificate}");
        assert!(
            for_client("somebody", "no PEM", &key).is_err() && for_client("somebody", &authority, "no PEM").is_err()
        );
    }
}
