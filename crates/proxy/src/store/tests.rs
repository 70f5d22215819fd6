// SPDX-License-Identifier: Apache-2.0
use super::Store;
use l7::link::{Received, Status};
use l7::{
    BackendTls, Certificate, Cluster, Endpoint, Endpoints, Key, Kind, Listener, Object, Serve, Snapshot, Termination,
    TlsAction, TlsServer, Trust, TrustAnchors, Update, Version,
};
use std::sync::Arc;

fn store() -> Store {
    Store::new(Arc::default(), 1)
}

fn apply(store: &mut Store, version: u64, complete: bool, set: Vec<Object>, remove: Vec<Key>) -> Status {
    store.apply(Received { version: Version(version), complete, update: Update { set, remove } });
    store.status()
}

fn signed() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn certificate(chain: &str, key: &str) -> Object {
    Certificate { name: "cert".into(), chain: chain.into(), key: key.into() }.into()
}

fn listener() -> Object {
    let termination = Termination { certificates: vec!["cert".into()], client: None, alpn: Vec::new() };
    let action = TlsAction::Http(termination, l7::HttpServer::default());
    let serve = Serve::Tls(vec![TlsServer { hosts: vec!["*".parse().unwrap()], action }]);
    let address = "127.0.0.1:1".parse().unwrap();
    let limits = l7::Limits::default();
    Listener {
        name: "l".into(),
        address,
        port: None,
        transparent: false,
        clear: None,
        node: false,
        proxy_protocol: false,
        limits,
        serve,
        sources: Vec::new(),
    }
    .into()
}

fn cluster() -> Object {
    let trust = Trust::Anchors(vec!["ca".into()]);
    let tls = BackendTls { hostname: "shop.example".into(), names: Vec::new(), trust, certificate: None };
    Cluster {
        name: "c".into(),
        protocol: Default::default(),
        tls: Some(tls),
        proxy_protocol: None,
        by_client: false,
        limits: Default::default(),
        refuse: None,
    }
    .into()
}

fn anchors(pem: &str) -> Object {
    TrustAnchors { name: "ca".into(), certificates: pem.into() }.into()
}

fn faults(status: &Status) -> Vec<String> {
    status.faults.iter().map(|fault| format!("{}: {}", fault.object, fault.reason)).collect()
}

#[test]
fn routes_share_what_they_say_alike_and_what_is_gone_is_forgotten() {
    let route = |name: &str, cluster: &str| {
        let to = l7::Backend::to(cluster, 1);
        let forward = l7::HttpForward { backends: vec![to], ..l7::HttpForward::default() };
        let mut matched = l7::RouteMatch::below(&format!("/{name}"));
        matched.precedence.source = "shop/routes".into();
        let action = l7::RouteAction::Forward(forward);
        Object::from(l7::Route::plain(name, l7::Attachment::any("shop/web/http"), [matched], action))
    };
    let mut store = store();
    for (version, name) in [(1, "a"), (2, "b")] {
        assert_eq!(apply(&mut store, version, false, vec![route(name, "shop/cart:80")], Vec::new()).faults, []);
    }
    let routes: Vec<_> = store.serving().tables.routes().cloned().collect();
    let [one, other] = routes.as_slice() else { panic!("{routes:?}") };
    assert!(Arc::ptr_eq(&one.attachments, &other.attachments));
    assert!(Arc::ptr_eq(&one.matches[0].precedence.source, &other.matches[0].precedence.source));
    let cluster = |route: &l7::Route| match &route.action {
        l7::RouteAction::Forward(forward) => match &forward.backends[0].target {
            l7::Target::Cluster(name) => Arc::clone(name),
            l7::Target::Status(_) => panic!("a status"),
        },
        _ => panic!("no forward"),
    };
    assert!(Arc::ptr_eq(&cluster(one), &cluster(other)));
    let text = Arc::downgrade(&cluster(one));
    drop(routes);
    for version in 3..20 {
        let key = |name: &str| Key { kind: Kind::Route, name: name.into() };
        let set = vec![route("c", &format!("shop/{version}:80"))];
        apply(&mut store, version, false, set, vec![key("a"), key("b")]);
    }
    assert!(text.upgrade().is_none(), "nobody has it any more");
}

#[test]
fn a_bad_certificate_leaves_the_good_one_and_names_its_field() {
    let mut store = store();
    let (chain, key) = signed();
    let (_, other) = signed();
    assert_eq!(
        faults(&apply(&mut store, 1, true, vec![certificate(&chain, &key), listener()], Vec::new())),
        [] as [&str; 0]
    );
    for (chain, key, field) in [(&*chain, &*other, "key"), ("", &*key, "chain"), (&*chain, "no key", "key")] {
        let told = faults(&apply(&mut store, 2, false, vec![certificate(chain, key)], Vec::new()));
        assert!(told.len() == 1 && told[0].starts_with(&format!("certificate cert: {field}: ")), "{told:?}");
        assert_eq!(store.credentials.certificates.len(), 1);
    }
    assert_eq!(store.status().version, Version(2));
    let told = apply(&mut store, 3, false, vec![certificate(&chain, &key)], Vec::new());
    assert_eq!(faults(&told), [] as [&str; 0]);
}

#[test]
fn a_cluster_whose_authority_goes_serves_nothing_until_it_comes_back() {
    let mut store = store();
    let (ca, _) = signed();
    apply(&mut store, 1, true, vec![cluster(), anchors(&ca)], Vec::new());
    assert!(store.serving().upstreams.contains_key("c"), "what is referred to may come in one update");
    let gone = Key { kind: Kind::TrustAnchors, name: "ca".into() };
    let told = faults(&apply(&mut store, 2, false, Vec::new(), vec![gone]));
    assert_eq!(told, ["cluster c: tls.trust: ca is not there"]);
    assert!(!store.serving().upstreams.contains_key("c"));
    let told = faults(&apply(&mut store, 3, false, vec![anchors(&ca)], Vec::new()));
    assert_eq!(told, [] as [&str; 0]);
    assert!(store.serving().upstreams.contains_key("c"));
}

#[test]
fn endpoints_may_come_before_their_cluster_and_outlive_it() {
    let mut store = store();
    let endpoint =
        Endpoint { address: "127.0.0.1:1".parse().unwrap(), state: Default::default(), zone: None, identity: 0 };
    let endpoints: Object = Endpoints { cluster: "c".into(), prefer_zone: None, endpoints: vec![endpoint] }.into();
    let Object::Cluster(mut plain) = cluster() else { panic!() };
    Arc::make_mut(&mut plain).tls = None;
    let usable =
        |store: &Store| store.serving().upstreams.get("c").is_some_and(|upstream| upstream.choose(&[]).is_some());
    apply(&mut store, 1, true, vec![endpoints], Vec::new());
    for version in [2, 4] {
        apply(&mut store, version, false, vec![Object::Cluster(plain.clone())], Vec::new());
        assert!(usable(&store));
        apply(&mut store, version + 1, false, Vec::new(), vec![Key { kind: Kind::Cluster, name: "c".into() }]);
        assert!(!usable(&store));
    }
}

#[test]
fn a_complete_update_takes_away_what_is_not_in_it_and_leaves_alone_what_is_as_it_was() {
    let mut store = store();
    let (chain, key) = signed();
    let (ca, _) = signed();
    let all = vec![certificate(&chain, &key), listener(), anchors(&ca), cluster()];
    apply(&mut store, 9, true, all.clone(), Vec::new());
    let before = store.serving().upstreams.get("c").cloned().unwrap();
    apply(&mut store, 1, true, all[2..].to_vec(), Vec::new());
    assert!(Arc::ptr_eq(&before, store.serving().upstreams.get("c").unwrap()), "connections are kept");
    assert!(store.serving().listeners.is_empty());
    assert_eq!(*store.good(), all[2..].iter().cloned().collect::<Snapshot>());
}

#[test]
fn a_key_that_is_gone_is_neither_shown_nor_kept() {
    let mut store = store();
    let (chain, key) = signed();
    apply(&mut store, 1, true, vec![certificate(&chain, &key), listener()], Vec::new());
    let gone = Key { kind: Kind::Certificate, name: "cert".into() };
    apply(&mut store, 2, false, Vec::new(), vec![gone.clone()]);
    assert!(store.credentials.certificates.is_empty() && store.good().get(&gone).is_none());
    assert!(store.serving().listeners.contains_key("l"), "its listener stays and shows nothing");
}

#[test]
fn what_cannot_be_verified_is_refused_rather_than_spoken_to_as_before_until_it_can_be() {
    let mut store = store();
    let Object::Cluster(with_tls) = cluster() else { panic!() };
    let mut in_clear = with_tls.as_ref().clone();
    in_clear.tls = None;
    apply(&mut store, 1, true, vec![in_clear.into()], Vec::new());
    let spoken_to = |store: &Store| store.serving().upstreams.contains_key("c");
    assert!(spoken_to(&store));
    let told = faults(&apply(&mut store, 2, false, vec![cluster()], Vec::new()));
    assert_eq!(told, ["cluster c: tls.trust: ca is not there"]);
    assert!(!spoken_to(&store));
    let (chain, _) = signed();
    assert_eq!(faults(&apply(&mut store, 3, false, vec![anchors(&chain)], Vec::new())), [""; 0]);
    assert!(spoken_to(&store));
    let mut misnamed = with_tls.as_ref().clone();
    misnamed.tls.as_mut().unwrap().hostname = format!("{}.test", "a".repeat(64));
    assert_eq!(apply(&mut store, 4, false, vec![misnamed.into()], Vec::new()).faults.len(), 1);
    assert!(!spoken_to(&store));
}

#[test]
fn a_listener_that_waits_for_its_authorities_lets_nobody_in_and_keeps_the_rest() {
    let mut store = store();
    let (chain, key) = signed();
    apply(&mut store, 1, true, vec![certificate(&chain, &key), listener()], Vec::new());
    let Object::Listener(open) = listener() else { panic!() };
    let mut strict = open.as_ref().clone();
    let Serve::Tls(servers) = &mut strict.serve else { panic!() };
    let mut other = servers[0].clone();
    other.hosts = vec!["other.test".parse().unwrap()];
    let TlsAction::Http(termination, _) = &mut servers[0].action else { panic!() };
    termination.client = Some(l7::ClientValidation { trust: vec!["ca".into()], allow_unverified: false });
    servers.push(other);
    let told = faults(&apply(&mut store, 2, false, vec![strict.into()], Vec::new()));
    assert_eq!(told, ["listener l: client.trust: ca is not there"]);
    let lets_in = |store: &Store, name: &str| {
        store.serving().listeners["l"].tls_site(name).is_some_and(|site| site.http_site().is_some())
    };
    assert_eq!([lets_in(&store, "h"), lets_in(&store, "other.test")], [false, true]);
    assert_eq!(faults(&apply(&mut store, 3, false, vec![anchors(&chain)], Vec::new())), [""; 0]);
    assert_eq!([lets_in(&store, "h"), lets_in(&store, "other.test")], [true, true]);
}

#[test]
fn what_is_sent_to_a_listeners_address_comes_back_as_long_as_it_has_it() {
    let mut store = store();
    let [here, there] = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
    let at = |store: &Store| [here, there].map(|to| store.serving().places.are_at(crate::loops::Transport::Tcp, to));
    apply(&mut store, 1, true, vec![listener()], Vec::new());
    assert_eq!(at(&store), [true, false]);
    let Object::Listener(mut moved) = listener() else { panic!("a listener") };
    Arc::make_mut(&mut moved).address = there;
    apply(&mut store, 2, false, vec![Object::Listener(moved)], Vec::new());
    assert_eq!(at(&store), [false, true]);
    apply(&mut store, 3, false, Vec::new(), vec![Key { kind: Kind::Listener, name: "l".into() }]);
    assert_eq!(at(&store), [false, false]);
}
