// SPDX-License-Identifier: Apache-2.0
//! TLS that ends here, that passes through, and that begins here.

use crate::backend::Backend;
use crate::client::{connect, get, read_all, status, value};
use crate::objects::*;
use crate::world::{World, free};
use l7::{
    Alpn, BackendProtocol, BackendTls, Certificate, ClientValidation, HttpServer, Object, PeerName, Serve, TableRef,
    Termination, TlsAction, TlsServer, Trust, TrustAnchors,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self(Issuer::new(parameters, key), certificate)
    }

    fn anchors(&self, name: &str) -> Object {
        TrustAnchors { name: name.into(), certificates: self.1.as_str().into() }.into()
    }

    /// A certificate and its key.
    fn sign(&self, names: &[&str]) -> (String, String) {
        let hosts: Vec<String> = names.iter().filter(|name| !name.contains("://")).map(|n| (*n).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).unwrap();
        let uris = names.iter().filter(|name| name.contains("://"));
        parameters.subject_alt_names.extend(uris.map(|uri| SanType::URI((*uri).try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn certificate(&self, name: &str, hosts: &[&str]) -> Object {
        let (chain, key) = self.sign(hosts);
        Certificate { name: name.into(), chain: chain.into(), key: key.into() }.into()
    }
}

/// A client that trusts an authority, and what it shows.
fn client(authority: &Authority, alpn: &[&str], shows: Option<(String, String)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.1.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn open(client: &TlsConnector, address: SocketAddr, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
    client.connect(ServerName::try_from(name).unwrap(), connect(address).await).await
}

async fn ask(client: &TlsConnector, address: SocketAddr, name: &'static str, host: &str) -> String {
    let Ok(mut stream) = open(client, address, name).await else { return "refused".into() };
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return "refused".into();
    }
    read_all(&mut stream).await
}

fn termination(certificates: &[&str]) -> Termination {
    Termination {
        certificates: certificates.iter().map(|name| (*name).into()).collect(),
        client: None,
        alpn: vec![Alpn::Http2, Alpn::Http1],
    }
}

fn server(host: &str, action: TlsAction) -> TlsServer {
    TlsServer { hosts: vec![host.parse().unwrap()], action }
}

/// A TLS backend that says its name in HTTP, in whatever was agreed.
async fn tls_backend(certificate: (String, String), alpn: &[&str]) -> Backend {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.0.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.1.as_bytes()).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Backend::raw(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let text = format!("backend: tls\nsni: {name}\nversion: {:?}\n", request.version());
                async move {
                    Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::from(
                        text,
                    )))
                }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_in_the_hello_chooses_certificate_and_routes_and_others_are_misdirected() {
    let (address, backend, ca) = (free(), Backend::echo("a").await, Authority::new());
    let empty = HttpServer {
        tables: vec![TableRef { host: "*".parse().unwrap(), table: "none".into() }],
        ..HttpServer::default()
    };
    let mut objects = simple(address, backend.address);
    let servers = vec![
        server("a.example", TlsAction::Http(termination(&["a"]), site())),
        server("*.b.example", TlsAction::Http(termination(&["other", "b"]), empty)),
    ];
    objects[0] = listener(address, Serve::Tls(servers)).into();
    objects.push(ca.certificate("a", &["a.example"]));
    objects.push(ca.certificate("b", &["*.b.example"]));
    objects.push(ca.certificate("other", &["x.example"]));
    let world = World::of(objects).await;
    let client = client(&ca, &[], None);
    let answer = ask(&client, address, "a.example", "A.example").await;
    assert_eq!((status(&answer), value(&answer, "got-x-forwarded-proto")), (200, Some("https")), "{answer}");
    assert_eq!(status(&ask(&client, address, "x.b.example", "x.b.example").await), 404);
    assert_eq!(status(&ask(&client, address, "a.example", "x.b.example").await), 421);
    assert_eq!(ask(&client, address, "elsewhere.example", "a.example").await, "refused");
    world
        .metric_is(&format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"server-name\"}} 1"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_changes_under_load_and_goes_when_it_is_revoked() {
    let (address, backend, old, new) = (free(), Backend::echo("a").await, Authority::new(), Authority::new());
    let mut objects = simple(address, backend.address);
    objects[0] = listener(address, Serve::Tls(vec![server("*", TlsAction::Http(termination(&["a"]), site()))])).into();
    objects.push(old.certificate("a", &["a.example"]));
    let mut world = World::of(objects.clone()).await;
    let (trusts_old, trusts_new) = (client(&old, &[], None), client(&new, &[], None));
    let mut open_before = open(&trusts_old, address, "a.example").await.unwrap();
    assert_eq!(status(&ask(&trusts_old, address, "a.example", "h").await), 200);
    objects[4] = new.certificate("a", &["a.example"]);
    world.publish(objects.clone()).await;
    assert_eq!(status(&ask(&trusts_new, address, "a.example", "h").await), 200);
    assert_eq!(ask(&trusts_old, address, "a.example", "h").await, "refused");
    open_before.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_all(&mut open_before).await), 200, "connections stay");
    objects.pop();
    world.publish(objects).await;
    assert_eq!(ask(&trusts_new, address, "a.example", "h").await, "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_a_certificate_where_they_must() {
    let (address, backend, ca, clients) = (free(), Backend::echo("a").await, Authority::new(), Authority::new());
    let mut objects = simple(address, backend.address);
    let verified = |allow_unverified| {
        let client = Some(ClientValidation { trust: vec!["clients".into()], allow_unverified });
        TlsAction::Http(Termination { client, ..termination(&["a"]) }, site())
    };
    let servers = vec![server("strict.example", verified(false)), server("open.example", verified(true))];
    objects[0] = listener(address, Serve::Tls(servers)).into();
    objects.push(ca.certificate("a", &["strict.example", "open.example"]));
    objects.push(clients.anchors("clients"));
    let _world = World::of(objects).await;
    let nobody = client(&ca, &[], None);
    let known = client(&ca, &[], Some(clients.sign(&["me"])));
    let stranger = client(&ca, &[], Some(ca.sign(&["me"])));
    assert_eq!(status(&ask(&known, address, "strict.example", "strict.example").await), 200);
    for refused in [&nobody, &stranger] {
        assert_eq!(status(&ask(refused, address, "strict.example", "strict.example").await), 0);
    }
    for let_in in [&nobody, &stranger, &known] {
        assert_eq!(status(&ask(let_in, address, "open.example", "open.example").await), 200);
    }
    // Who came in without a certificate does not ask for what wants one.
    assert_eq!(status(&ask(&nobody, address, "open.example", "strict.example").await), 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_through_reaches_its_backend_untouched_beside_what_ends_here() {
    let (address, plain, ca, backends) = (free(), Backend::echo("a").await, Authority::new(), Authority::new());
    let secret = tls_backend(backends.sign(&["pass.example", "deep.pass.example"]), &[]).await;
    let mut objects = simple(address, plain.address);
    let servers = vec![
        server("*.pass.example", TlsAction::Passthrough(bytes_to("secret"))),
        server("pass.example", TlsAction::Passthrough(bytes_to("secret"))),
        server("bytes.example", TlsAction::Tcp(termination(&["a"]), bytes_to("c"))),
        server("*", TlsAction::Http(termination(&["a"]), site())),
    ];
    objects[0] = listener(address, Serve::Tls(servers)).into();
    objects.extend([
        ca.certificate("a", &["a.example", "bytes.example"]),
        cluster("secret").into(),
        endpoints("secret", &[secret.address]).into(),
    ]);
    let _world = World::of(objects).await;
    let (through, here) = (client(&backends, &[], None), client(&ca, &[], None));
    for name in ["pass.example", "deep.pass.example"] {
        let answer = ask(&through, address, name, "h").await;
        assert_eq!((value(&answer, "backend"), value(&answer, "sni")), (Some("tls"), Some(name)));
    }
    assert_eq!(value(&ask(&here, address, "a.example", "h").await, "backend"), Some("a"));
    let bytes = ask(&here, address, "bytes.example", "h").await;
    assert_eq!((value(&bytes, "backend"), value(&bytes, "got-x-forwarded-for")), (Some("a"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_comes_byte_by_byte_passes_through() {
    use tokio::io::AsyncReadExt;
    let (address, backends) = (free(), Authority::new());
    let secret = tls_backend(backends.sign(&["pass.example"]), &[]).await;
    let servers = vec![server("pass.example", TlsAction::Passthrough(bytes_to("c")))];
    let _world = World::of(vec![
        listener(address, Serve::Tls(servers)).into(),
        cluster("c").into(),
        endpoints("c", &[secret.address]).into(),
    ])
    .await;
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let mut proxy = connect(address).await;
        proxy.set_nodelay(true).unwrap();
        let (mut reader, mut writer) = proxy.split();
        let (mut from, mut to) = tokio::io::split(theirs);
        let up = async {
            let mut byte = [0];
            while from.read_exact(&mut byte).await.is_ok() && writer.write_all(&byte).await.is_ok() {}
        };
        tokio::join!(up, tokio::io::copy(&mut reader, &mut to)).1.unwrap();
    });
    let mut stream =
        client(&backends, &[], None).connect(ServerName::try_from("pass.example").unwrap(), ours).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = crate::client::read_until(&mut stream, "version").await;
    assert_eq!(value(&answer, "backend"), Some("tls"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_in_tls_are_verified_and_speak_what_they_choose() {
    let (ca, strangers) = (Authority::new(), Authority::new());
    let uri = "spiffe://cluster/ns/shop";
    let tls = |names| BackendTls {
        hostname: "b.example".into(),
        names,
        trust: Trust::Anchors(vec!["ca".into()]),
        certificate: None,
    };
    let named = |name: &str| vec![PeerName::Hostname(name.into())];
    let rows = [
        (ca.sign(&["b.example"]), vec![], &["http/1.1"][..], BackendProtocol::Auto, Some("HTTP/1.1")),
        (ca.sign(&["b.example"]), vec![], &["h2", "http/1.1"], BackendProtocol::Auto, Some("HTTP/2.0")),
        (ca.sign(&["b.example"]), vec![], &["h2", "http/1.1"], BackendProtocol::Http1, Some("HTTP/1.1")),
        (ca.sign(&["b.example"]), vec![], &["http/1.1"], BackendProtocol::Http2, None),
        (ca.sign(&["c.example"]), vec![], &[], BackendProtocol::Auto, None),
        (strangers.sign(&["b.example"]), vec![], &[], BackendProtocol::Auto, None),
        (strangers.sign(&["b.example"]), named("b.example"), &[], BackendProtocol::Auto, None),
        (ca.sign(&["other.example"]), named("other.example"), &[], BackendProtocol::Auto, Some("HTTP/1.1")),
        (ca.sign(&["b.example"]), named("other.example"), &[], BackendProtocol::Auto, None),
        (ca.sign(&["x.example", uri]), vec![PeerName::Uri(uri.into())], &[], BackendProtocol::Auto, Some("HTTP/1.1")),
        (ca.sign(&["b.example"]), vec![PeerName::Uri(uri.into())], &[], BackendProtocol::Auto, None),
    ];
    for (index, (certificate, names, alpn, protocol, wanted)) in rows.into_iter().enumerate() {
        let (address, backend) = (free(), tls_backend(certificate, alpn).await);
        let mut objects = simple(address, backend.address);
        let mut over_tls = cluster("c");
        (over_tls.tls, over_tls.protocol) = (Some(tls(names)), protocol);
        objects[2] = over_tls.into();
        objects.push(ca.anchors("ca"));
        let _world = World::of(objects).await;
        let answer = get(address, "h", "/", "").await;
        assert_eq!(value(&answer, "version"), wanted, "row {index}: {answer}");
        assert_eq!(status(&answer), if wanted.is_some() { 200 } else { 503 }, "row {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_not_for_what_wants_another_certificate_of_its_client_by_now() {
    let (address, backend, ca) = (free(), Backend::echo("a").await, Authority::new());
    let mut objects = simple(address, backend.address);
    let serve = |client| {
        let action = TlsAction::Http(Termination { client, ..termination(&["a"]) }, site());
        Object::from(listener(address, Serve::Tls(vec![server("*", action)])))
    };
    let verified = |trust: &str| Some(ClientValidation { trust: vec![trust.into()], allow_unverified: false });
    let (old, new) = (Authority::new(), Authority::new());
    objects.extend([ca.certificate("a", &["a.example"]), old.anchors("old"), new.anchors("new")]);
    objects[0] = serve(None);
    let mut world = World::of(objects.clone()).await;
    let request = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut nobody = open(&client(&ca, &[], None), address, "a.example").await.unwrap();
    nobody.write_all(request).await.unwrap();
    assert_eq!(status(&crate::client::read_until(&mut nobody, "length: 0").await), 200);
    objects[0] = serve(verified("old"));
    world.publish(objects.clone()).await;
    nobody.write_all(request).await.unwrap();
    assert_eq!(status(&read_all(&mut nobody).await), 421);
    let mut known = open(&client(&ca, &[], Some(old.sign(&["me"]))), address, "a.example").await.unwrap();
    known.write_all(request).await.unwrap();
    assert_eq!(status(&crate::client::read_until(&mut known, "length: 0").await), 200);
    // The same name for other authorities is another verification too.
    objects[5] = new.anchors("old");
    world.publish(objects).await;
    known.write_all(request).await.unwrap();
    assert_eq!(status(&read_all(&mut known).await), 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_of_its_content_takes_no_endpoint_from_others() {
    let (address, ca) = (free(), Authority::new());
    let backend = tls_backend(ca.sign(&["b.example"]), &["http/1.1"]).await;
    let mut objects = simple(address, backend.address);
    let mut over_tls = cluster("c");
    let trust = Trust::Anchors(vec!["ca".into()]);
    over_tls.tls = Some(BackendTls { hostname: "b.example".into(), names: Vec::new(), trust, certificate: None });
    objects[2] = over_tls.into();
    objects.push(ca.anchors("ca"));
    let _world = World::of(objects).await;
    let answer = get(address, "h", "/", "content-type: application/grpc\r\n").await;
    assert_eq!(value(&answer, "grpc-status"), Some("14"), "{answer}");
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_may_be_for_clients_with_tls_and_without_and_each_has_its_routes() {
    let (authority, address, backend) = (Authority::new(), free(), Backend::echo("a").await);
    let server = server("*", TlsAction::Http(termination(&["cert"]), HttpServer::default()));
    let mut objects = simple(address, backend.address);
    let both = l7::Listener { clear: Some(site()), ..listener(address, Serve::Tls(vec![server])) };
    objects[0] = both.clone().into();
    objects.push(authority.certificate("cert", &["shop.example"]));
    let mut world = World::of(objects.clone()).await;
    let client = client(&authority, &[], None);
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
    assert_eq!(status(&ask(&client, address, "shop.example", "shop.example").await), 404, "it has no routes in TLS");
    objects[0] = l7::Listener { clear: None, ..both }.into();
    world.publish(objects).await;
    assert_eq!(get(address, "h", "/", "").await, "");
}
