// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::{Certificate, Usage};
use crate::leaf;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{ServerName, UnixTime};
use std::sync::Arc;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn wanted(days: u32) -> Certificate {
    Certificate {
        name: "hubble-server-certs".into(),
        namespace: "kube-system".into(),
        common_name: "*.blue.hubble-grpc.cilium.io".into(),
        hosts: vec!["*.blue.hubble-grpc.cilium.io".into(), "192.0.2.1".into()],
        usage: vec![Usage::Signing, Usage::KeyEncipherment, Usage::ServerAuth, Usage::ClientAuth],
        validity: DAY * days,
    }
}

/// Whether a client that trusts an authority takes a certificate for this name, some days after it was made.
fn trusts(authority: &str, certificate: &str, name: &str, days: u32) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let then = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000) + DAY * days);
    verifier.verify_server_cert(&certificate, &[], &name, &[], then).map(drop)
}

/// An authority as Helm makes it: its name is a printable string.
fn of_helm(days: u32) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, DnValue::PrintableString("Cilium CA".try_into().unwrap()));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]);
    (params.not_before, params.not_after) = (now() - SKEW, now() + DAY * days);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn what_an_authority_signs_is_trusted_by_who_trusts_it_for_these_names_until_it_ends() {
    let authority = Authority::make("Cilium CA", DAY * 1095, now()).unwrap();
    let leaf = leaf::sign(&wanted(365), &authority, now()).unwrap();
    for name in ["node1.blue.hubble-grpc.cilium.io", "192.0.2.1"] {
        trusts(&authority.certificate, &leaf.certificate, name, 364).unwrap();
    }
    assert!(trusts(&authority.certificate, &leaf.certificate, "node1.red.hubble-grpc.cilium.io", 1).is_err());
    assert!(trusts(&authority.certificate, &leaf.certificate, "192.0.2.1", 366).is_err());
    let other = Authority::make("Cilium CA", DAY * 1095, now()).unwrap();
    assert!(trusts(&other.certificate, &leaf.certificate, "192.0.2.1", 1).is_err());
    // It is also who it says it is: the key belongs to the certificate.
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap()];
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    server.with_no_client_auth().with_single_cert(chain, key).unwrap();
}

#[test]
fn a_renewed_authority_is_trusted_by_those_who_know_the_old_one_only_and_the_other_way_round() {
    for (certificate, key) in [of_helm(30), {
        let made = Authority::make("Cilium CA", DAY * 30, now()).unwrap();
        (made.certificate.clone(), made.key())
    }] {
        let old = Authority::read(certificate.as_bytes(), key.as_bytes()).unwrap();
        let before = leaf::sign(&wanted(20), &old, now()).unwrap();
        let renewed = old.renewed(DAY * 1095, now()).unwrap();
        assert_ne!(renewed.certificate, certificate);
        let after = leaf::sign(&wanted(365), &renewed, now()).unwrap();
        for (authority, leaf) in
            [(&certificate, &after), (&renewed.certificate, &before), (&renewed.certificate, &after)]
        {
            trusts(authority, &leaf.certificate, "192.0.2.1", 10).unwrap();
        }
        trusts(&renewed.certificate, &after.certificate, "192.0.2.1", 364).unwrap();
        // What is kept is read again, and renewed again.
        let again = Authority::read(renewed.certificate.as_bytes(), renewed.key().as_bytes()).unwrap();
        let again = again.renewed(DAY * 2000, now()).unwrap();
        trusts(&again.certificate, &before.certificate, "192.0.2.1", 10).unwrap();
    }
}

#[test]
fn nothing_outlives_the_authority_that_signed_it_and_one_that_has_ended_signs_nothing() {
    let (certificate, key) = of_helm(30);
    let authority = Authority::read(certificate.as_bytes(), key.as_bytes()).unwrap();
    assert!(authority.ends_within(DAY * 31, now()) && !authority.ends_within(DAY * 29, now()));
    let leaf = leaf::sign(&wanted(365), &authority, now()).unwrap();
    assert_eq!(leaf.ends, now() + DAY * 30);
    let late = leaf::sign(&wanted(365), &authority, now() + DAY * 30).map(|leaf| leaf.ends);
    assert!(matches!(late, Err(AuthorityError::Ended(_))), "{late:?}");
}

#[test]
fn what_is_no_authority_is_refused_without_telling_the_key() {
    let (certificate, key) = of_helm(30);
    let (_, other) = of_helm(30);
    let leaf = leaf::sign(&wanted(1), &Authority::make("x", DAY, now()).unwrap(), now()).unwrap();
    for (certificate, key, said) in [
        ("", key.as_str(), "ca.crt: no certificate"),
        (&certificate, "", "ca.key: no private key"),
        (&certificate, &certificate, "ca.key: no private key"),
        (&certificate, &other, "ca.key is not the key of ca.crt"),
        (&leaf.certificate, &leaf.key, "no authority"),
    ] {
        let error = Authority::read(certificate.as_bytes(), key.as_bytes()).map(drop).unwrap_err().to_string();
        assert!(error.contains(said), "{said} is missing in: {error}");
        assert!(key.lines().nth(1).is_none_or(|line| !error.contains(line)), "{error}");
    }
}

/// What programs other than this one write before a key.
#[test]
fn a_key_after_the_parameters_of_its_curve_is_found() {
    let (certificate, key) = of_helm(30);
    let key = format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{key}");
    Authority::read(certificate.as_bytes(), key.as_bytes()).map(drop).unwrap();
}
