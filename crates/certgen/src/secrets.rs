// SPDX-License-Identifier: Apache-2.0
//! The Secrets that hold the authority and what it signed.

use crate::authority::Authority;
use crate::leaf::Leaf;
use anyhow::{Context, bail};
use k8s::Client;
use k8s::k8s_openapi::ByteString;
use k8s::k8s_openapi::api::core::v1::Secret;
use k8s::kube::api::{Api, ObjectMeta, PostParams};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The label by which Secrets tell who made them, and what it is for those of this command and of Helm.
const MADE_BY: &str = "app.kubernetes.io/managed-by";
const OURS: &str = "cilium-certgen";
const HELMS: &str = "Helm";

/// For how long Helm may take to remove what it made before: it does so within the upgrade that begins this command.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

/// A Secret by its place, whether or not it exists.
pub(crate) struct Place {
    api: Api<Secret>,
    namespace: String,
    name: String,
}

/// An authority, and the Secret that it was read from.
pub(crate) struct Held {
    pub(crate) authority: Authority,
    /// It was made by this command or by the chart, which keeps what it finds.
    pub(crate) may_be_renewed: bool,
    /// What it was read from, to be replaced if nobody else was faster.
    pub(crate) secret: Secret,
}

impl Place {
    pub(crate) fn new(client: &Client, namespace: &str, name: &str) -> Self {
        Self { api: client.namespaced(namespace), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The authority that is there, if any.
    pub(crate) async fn authority(&self) -> anyhow::Result<Option<Held>> {
        let Some(secret) = self.read().await? else { return Ok(None) };
        let part = |key: &str| -> &[u8] { secret.data.as_ref().and_then(|d| d.get(key)).map_or(&[], |b| &b.0) };
        let authority = Authority::read(part("ca.crt"), part("ca.key")).with_context(|| self.to_string())?;
        let may_be_renewed = matches!(maker(&secret), OURS | HELMS);
        Ok(Some(Held { authority, may_be_renewed, secret }))
    }

    /// Keeps an authority, in place of the one that was read, if any. Somebody else who was faster is an error.
    pub(crate) async fn keep_authority(&self, authority: &Authority, before: Option<Secret>) -> anyhow::Result<()> {
        let data = [("ca.crt", authority.certificate.clone()), ("ca.key", authority.key())];
        self.write(before, None, data.into()).await
    }

    /// Keeps a certificate, unless Helm keeps another there.
    pub(crate) async fn keep(&self, leaf: Leaf, authority: &Authority) -> anyhow::Result<()> {
        let before = self.without_helm().await?;
        let data = [("ca.crt", authority.certificate.clone()), ("tls.crt", leaf.certificate), ("tls.key", leaf.key)];
        self.write(before, Some("kubernetes.io/tls"), data.into()).await
    }

    async fn read(&self) -> anyhow::Result<Option<Secret>> {
        self.api.get_opt(&self.name).await.with_context(|| format!("cannot read {self}"))
    }

    /// What is there, once it is not Helm's.
    async fn without_helm(&self) -> anyhow::Result<Option<Secret>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.read().await?;
            if found.as_ref().is_none_or(|secret| maker(secret) != HELMS) {
                return Ok(found);
            }
            if Instant::now() >= until {
                bail!("{self} is Helm's, and stays so: delete it to have it made here");
            }
            sleep(PAUSE).await;
        }
    }

    async fn write(
        &self,
        before: Option<Secret>,
        kind: Option<&str>,
        data: BTreeMap<&str, String>,
    ) -> anyhow::Result<()> {
        let data = data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect();
        let written = match before {
            Some(mut secret) => {
                secret.data = Some(data);
                self.api.replace(&self.name, &PostParams::default(), &secret).await
            }
            None => self.api.create(&PostParams::default(), &self.new_secret(kind, data)).await,
        };
        written.map(drop).with_context(|| format!("cannot write {self}"))
    }

    fn new_secret(&self, kind: Option<&str>, data: BTreeMap<String, ByteString>) -> Secret {
        let labels = [(MADE_BY, OURS), ("app.kubernetes.io/part-of", "cilium")];
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        };
        Secret { metadata, type_: kind.map(str::to_owned), data: Some(data), ..Secret::default() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret {}/{}", self.namespace, self.name)
    }
}

fn maker(secret: &Secret) -> &str {
    secret.metadata.labels.as_ref().and_then(|labels| labels.get(MADE_BY)).map_or("", String::as_str)
}
