// SPDX-License-Identifier: Apache-2.0
//! A node in memory, an API server in memory, and the agent as it is built on a real node.

use crate::apiserver::ApiServer;
use abi::maps;
use abi::policy::{EGRESS, INGRESS, PolicyKey, decide};
use agent::{Agent, Config};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use datapath::netlink::{MAIN_TABLE, Route};
use datapath::{Kernel, fake, sysctl};
use http_body_util::BodyExt;
use ipnet::IpNet;
use serde_json::{Value, json};
use statedb::{TaskFailure, Tasks};
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) const NODE: &str = "node1";
/// What `eventually` waits for, on the paused clock: longer than any back-off.
const PATIENCE: Duration = Duration::from_secs(900);

/// Nobody may reach the pods with the label `app: web`.
pub(crate) const DENY_ALL: &str = "
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
";

/// The cluster that every story begins with.
const CLUSTER: &str = "
kind: Namespace
metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}
";

pub(crate) struct World {
    pub(crate) api: ApiServer,
    name: String,
    /// Configuration keys that its story adds.
    keys: Vec<(&'static str, &'static str)>,
    /// What UIDs of pods begin with that are scheduled here.
    uids: &'static str,
    pub(crate) node: fake::Node,
    maps: Arc<dyn Kernel>,
    /// The same, where they do not fail.
    sound_maps: Arc<dyn Kernel>,
    folder: tempfile::TempDir,
    running: Option<Running>,
}

struct Running {
    api: axum::Router,
    healthz: axum::Router,
    token: CancellationToken,
    ended: JoinHandle<Result<(), TaskFailure>>,
}

/// A pod that has an interface.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) ifindex: u32,
    pub(crate) ip: Ipv4Addr,
    pub(crate) interface: String,
    container: String,
}

impl World {
    /// A node with one device, in a cluster of its own. No agent runs yet.
    pub(crate) async fn new() -> Self {
        Self::on(|maps| Arc::new(maps)).await
    }

    /// A second node of that one's cluster.
    pub(crate) async fn joining(first: &Self) -> Self {
        Self::node(first.api.clone(), 2, "heir", |maps| Arc::new(maps)).await
    }

    /// One with those maps.
    #[allow(dead_code, reason = "for the tests on the real kernel's maps")]
    pub(crate) async fn with_maps(maps: Arc<dyn Kernel>) -> Self {
        let mut world = Self::on(|_| Arc::clone(&maps)).await;
        world.sound_maps = maps;
        world
    }

    /// One with maps that fail now and then.
    pub(crate) async fn with_failing_maps(seed: u64) -> Self {
        Self::on(|maps| Arc::new(fake::chaos(maps, 0.2, seed))).await
    }

    async fn on(spoil: impl FnOnce(fake::Kernel) -> Arc<dyn Kernel>) -> Self {
        let api = ApiServer::new();
        api.apply(CLUSTER);
        Self::node(api, 1, "uid", spoil).await
    }

    async fn node(
        api: ApiServer,
        number: u8,
        uids: &'static str,
        spoil: impl FnOnce(fake::Kernel) -> Arc<dyn Kernel>,
    ) -> Self {
        use_settings_in_memory();
        log();
        let (name, ip, node) = (format!("node{number}"), format!("192.168.0.1{number}"), fake::Node::default());
        api.apply(&format!(
            "kind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [10.{number}.0.0/24]}}\n\
             status: {{addresses: [{{type: InternalIP, address: {ip}}}]}}\n"
        ));
        node.network.add_device("eth0", &[format!("{ip}/24").parse().unwrap()]).await.unwrap();
        let (maps, sound_maps) = (spoil(node.maps.clone()), Arc::new(node.maps.clone()));
        let folder = tempfile::tempdir().unwrap();
        Self { api, name, keys: Vec::new(), uids, node, maps, sound_maps, folder, running: None }
    }

    /// With these configuration keys as well.
    pub(crate) fn with_keys(mut self, keys: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        self.keys.extend(keys);
        self
    }

    /// Starts the agent, again and again while it ends by itself, as the kubelet does. Returns when it would serve.
    pub(crate) async fn start(&mut self) {
        while !self.try_start().await {}
    }

    async fn try_start(&mut self) -> bool {
        let config = self.config();
        let tasks = Tasks::new(CancellationToken::new());
        let Ok(host) = self.node.host_with(Arc::clone(&self.maps)) else { return false };
        let Ok(agent) = agent::build(&config, &self.name, host, &self.api.client(), &tasks) else {
            end(tasks).await;
            return false;
        };
        let token = tasks.token();
        let mut ended = tokio::spawn(tasks.run_until_failure());
        tokio::select! {
            () = agent.restored() => {}
            _ = &mut ended => return false,
        }
        let Agent { api, healthz, .. } = &agent;
        self.running = Some(Running { api: api.clone(), healthz: healthz.clone(), token, ended });
        agent.serving();
        true
    }

    /// Ends the agent. What it left in the kernel and on disk stays.
    pub(crate) async fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.token.cancel();
        running.ended.await.unwrap().unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// Has the kernel forget what follows from objects alone.
    pub(crate) fn forget_maps(&self) {
        let kernel = &self.node.maps;
        macro_rules! clear {
            ($($open:ident $map:ident),+) => {
                $({
                    let map = kernel.$open::<maps::$map>().unwrap();
                    map.keys().unwrap().iter().for_each(|key| assert!(map.remove(key).unwrap()));
                })+
            };
        }
        clear!(map Services, map Slots, map Backends, trie Policies, trie Ipcache4, trie Ipcache6);
    }

    /// Starts the agent and waits until pods can be attached.
    pub(crate) async fn start_ready(&mut self) {
        self.start().await;
        eventually("the agent to be ready", async || self.healthz().await == StatusCode::OK).await;
    }

    fn config(&self) -> Config {
        let folder = |name: &str| self.folder.path().join(name).display().to_string();
        let keys = [
            ("cluster-name", "test".to_owned()),
            ("enable-endpoint-health-checking", "false".to_owned()),
            ("enable-health-checking", "false".to_owned()),
            ("enable-ipv6", "false".to_owned()),
            ("ipam", "kubernetes".to_owned()),
            ("kube-proxy-replacement", "true".to_owned()),
            ("state-dir", folder("run")),
            ("write-cni-conf-when-ready", folder("cni/05-cilium.conflist")),
        ];
        let own = self.keys.iter().map(|(key, value)| (*key, (*value).to_owned()));
        Config::parse(&keys.into_iter().chain(own).map(|(key, value)| (key.to_owned(), value)).collect()).unwrap()
    }

    /// The folder in which the agent keeps what it knows of endpoints.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("run/state")
    }

    pub(crate) fn conflist_is_written(&self) -> bool {
        self.folder.path().join("cni/05-cilium.conflist").exists()
    }

    pub(crate) async fn healthz(&self) -> StatusCode {
        ask(&self.running.as_ref().unwrap().healthz, Method::GET, "/healthz", Value::Null).await.0
    }

    /// Asks the agent's REST API.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        ask(&self.running.as_ref().unwrap().api, method, path, body).await
    }

    /// Has the scheduler bind a pod `shop/NAME` with a label to this node.
    pub(crate) fn schedule(&self, name: &str, app: &str) {
        self.api.apply(&format!(
            "kind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: {}-{name}, labels: {{app: {app}}}}}\n\
             spec: {{nodeName: {}, serviceAccountName: default, containers: []}}\n",
            self.uids, self.name
        ));
    }

    /// What the container runtime and the CNI plugin do for an ADD of pod `shop/NAME`; or what the agent refuses.
    pub(crate) async fn try_add(&self, name: &str) -> Result<Attached, (StatusCode, Value)> {
        let owner = format!("shop%2F{name}");
        let (code, lease) =
            self.ask(Method::POST, &format!("/v1/ipam?owner={owner}&expiration=true"), Value::Null).await;
        if !code.is_success() {
            return Err((code, lease));
        }
        let (interface, container) = (format!("lxc{name}"), format!("container-{name}"));
        let ifindex = self.node.network.add_pod(&interface).await.unwrap();
        let request = json!({
            "container-id": container, "container-netns-path": format!("/run/netns/{name}"),
            "container-interface-name": "eth0", "interface-name": interface, "interface-index": ifindex,
            "mac": "02:00:00:00:01:01", "host-mac": "02:00:00:00:01:02", "addressing": lease["address"],
            "k8s-pod-name": name, "k8s-namespace": "shop", "k8s-uid": format!("{}-{name}", self.uids),
            "state": "waiting-for-identity", "sync-build-endpoint": true,
        });
        let attached =
            Attached { ifindex, ip: lease["address"]["ipv4"].as_str().unwrap().parse().unwrap(), interface, container };
        let (code, answer) = self.ask(Method::PUT, &attached.path(), request).await;
        if code.is_success() {
            return Ok(attached);
        }
        self.node.network.netlink().delete_link(ifindex).await.unwrap();
        self.ask(Method::DELETE, &format!("/v1/ipam/{}?owner={owner}", attached.ip), Value::Null).await;
        Err((code, answer))
    }

    /// A pod that is scheduled and attached.
    pub(crate) async fn add(&self, name: &str, app: &str) -> Attached {
        self.schedule(name, app);
        let pod = self.try_add(name).await.unwrap();
        self.tell_address(name, &pod);
        pod
    }

    /// The same, tried again and again, as the kubelet does.
    pub(crate) async fn add_at_last(&self, name: &str, app: &str) -> Attached {
        self.schedule(name, app);
        let mut attached = None;
        eventually("the pod to be attached", async || {
            attached = self.try_add(name).await.ok();
            attached.is_some()
        })
        .await;
        let pod = attached.unwrap();
        self.tell_address(name, &pod);
        pod
    }

    /// What the kubelet reports of a pod.
    pub(crate) fn tell_address(&self, name: &str, pod: &Attached) {
        let mut object = self.api.get("pods", &format!("shop/{name}")).unwrap();
        object["status"] = json!({"podIPs": [{"ip": pod.ip}]});
        self.api.apply(&object.to_string());
    }

    /// What they do for its DEL.
    pub(crate) async fn del(&self, pod: &Attached) {
        self.node.network.netlink().delete_link(pod.ifindex).await.unwrap();
        let (code, answer) = self.ask(Method::DELETE, "/v1/endpoint", json!({"container-id": pod.container})).await;
        assert!(code.is_success() || code == StatusCode::NOT_FOUND, "{code} {answer}");
    }

    /// What the programs know of the interface.
    pub(crate) fn endpoint(&self, pod: &Attached) -> Option<abi::endpoint::Endpoint> {
        self.node.maps.map::<maps::Endpoints>().unwrap().get(&pod.ifindex).unwrap()
    }

    /// What they know of an address of this node.
    pub(crate) fn is_local(&self, ip: Ipv4Addr) -> bool {
        self.node.maps.map::<maps::Locals>().unwrap().get(&IpAddr::V4(ip).into()).unwrap().is_some()
    }

    /// Whether the programs let a pod's peer with that identity open a TCP connection into it.
    pub(crate) fn lets_in(&self, pod: &Attached, peer: u32, port: u16) -> bool {
        self.permits(pod, (INGRESS, abi::endpoint::flags::INGRESS_ENFORCED), peer, port)
    }

    /// Whether the programs let a pod open one to a peer with that identity.
    pub(crate) fn lets_out(&self, pod: &Attached, peer: u32, port: u16) -> bool {
        self.permits(pod, (EGRESS, abi::endpoint::flags::EGRESS_ENFORCED), peer, port)
    }

    fn permits(&self, pod: &Attached, (direction, enforced): (u8, u16), peer: u32, port: u16) -> bool {
        let endpoint = self.endpoint(pod).unwrap();
        if endpoint.flags & abi::endpoint::flags::NOT_READY != 0 {
            return false;
        }
        let policies = self.node.maps.trie::<maps::Policies>().unwrap();
        let find = |identity| {
            let key = PolicyKey { policy: endpoint.policy, identity, direction, proto: 6, port: port.to_be() };
            policies.lookup(&key).unwrap()
        };
        let decided = decide(find(peer).as_ref(), find(0).as_ref()).map(|(entry, _)| entry.deny == 0);
        endpoint.flags & enforced == 0 || decided == Some(true)
    }

    /// The identity and the tunnel's end that the programs find for an address.
    pub(crate) fn ipcache(&self, ip: &str) -> Option<(u32, IpAddr)> {
        let ip: Ipv4Addr = ip.parse().unwrap();
        let entry = self.node.maps.trie::<maps::Ipcache4>().unwrap().lookup(&ip.octets()).unwrap()?;
        Some((entry.identity, entry.tunnel.into()))
    }

    /// Frontends and backends, as `cilium-dbg bpf lb list` shows them.
    pub(crate) fn services(&self) -> Vec<String> {
        let maps = services::Maps::open(&self.sound_maps).unwrap();
        let lines = services::dump::lb_list(&maps).unwrap();
        lines.iter().map(|line| format!("{} => {}", line.service, line.backend)).collect()
    }

    /// The host's route to that prefix.
    pub(crate) async fn route(&self, to: &str) -> Option<Route> {
        let to: IpNet = to.parse().unwrap();
        let routes = self.node.network.netlink().routes(MAIN_TABLE).await.unwrap();
        routes.into_iter().find(|route| route.destination == to)
    }

    /// All entries of the maps that agents fill, but for the epochs, which only rise.
    pub(crate) fn maps(&self) -> BTreeMap<&'static str, Vec<String>> {
        let kernel = &self.sound_maps;
        macro_rules! dump {
            ($($open:ident $map:ident),+) => {
                [$((stringify!($map), sorted(kernel.$open::<maps::$map>().unwrap().entries().unwrap()))),+].into()
            };
        }
        dump!(
            map Endpoints, map Locals, map Services, map Slots, map Backends, map Devices, map Node, trie Policies,
            trie Ipcache4, trie Ipcache6
        )
    }
}

impl Attached {
    fn path(&self) -> String {
        format!("/v1/endpoint/cni-attachment-id:{}:eth0", self.container)
    }
}

fn sorted<T: std::fmt::Debug>(entries: Vec<T>) -> Vec<String> {
    let mut lines: Vec<_> = entries.iter().map(|entry| format!("{entry:?}")).collect();
    lines.sort();
    lines
}

async fn end(tasks: Tasks) {
    tasks.token().cancel();
    tasks.run_until_failure().await.unwrap();
}

async fn ask(router: &axum::Router, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let answer = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let (status, body) = (answer.status(), answer.into_body().collect().await.unwrap().to_bytes());
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Looks again and again, on the paused clock.
pub(crate) async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !look().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Lets everything that is under way come to rest.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// The settings of this machine are not the test's to change.
fn use_settings_in_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proc");
        let settings = [
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv6/conf/all/forwarding", "0"),
            ("net/ipv4/ip_local_port_range", "32768\t60999"),
            ("net/ipv4/ip_local_reserved_ports", ""),
        ];
        for (name, value) in settings {
            let path = root.join("sys").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        sysctl::use_procfs(&root);
    });
}

/// `RUST_LOG=info cargo test -p agent --test stories STORY -- --nocapture` shows what the agent says.
fn log() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).without_time().try_init();
    }
}
