// SPDX-License-Identifier: Apache-2.0
//! What policies mean to pods of `examples/connectivity/pods.yaml`, however packets are routed: NetworkPolicies and CiliumNetworkPolicies, on connections that are
//! new and on those that live.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually, stays};
use lab::product;
use lab::suite::Case;
use serde_json::Value;

pub(crate) const CASES: &[Case] = &[
    ("nobody_is_let_in_by_a_default_deny_but_the_nodes_probes", default_deny),
    ("a_network_policy_lets_one_client_in_on_one_port", one_client_one_port),
    ("a_network_policy_lets_a_namespace_in", namespaces),
    ("an_egress_policy_keeps_a_client_from_all_but_one_port", egress),
    ("a_range_is_allowed_except_for_a_part_of_it", cidr),
    ("the_cluster_is_allowed_and_the_world_is_not", entities),
    ("a_deny_wins_over_every_allow_and_hubble_names_it", deny_wins),
    ("a_clusterwide_policy_holds_in_every_namespace", clusterwide),
    ("a_policy_that_is_withdrawn_cuts_live_connections_and_one_that_comes_back_lets_them_go_on", live_connections),
];

/// The pods of the manifest, with a listener on 9090 in those that serve.
struct Pods {
    client: Netns,
    visitor: Netns,
    outside: Netns,
    near: Vec<IpAddr>,
    far: Vec<IpAddr>,
    _listeners: Vec<TcpListener>,
}

impl Pods {
    fn find(cluster: &Cluster) -> Result<Self> {
        let (near, far) = (Netns::of_pod(cluster, "net", "near")?, Netns::of_pod(cluster, "net", "far")?);
        let outside = Netns::of_machine(cluster, "control")?;
        Ok(Self {
            client: Netns::of_pod(cluster, "net", "client")?,
            visitor: Netns::of_pod(cluster, "other", "visitor")?,
            _listeners: vec![near.listen(9090)?, far.listen(9090)?, outside.listen(9090)?],
            outside,
            near: cluster.pod_addresses("net", "near")?,
            far: cluster.pod_addresses("net", "far")?,
        })
    }

    fn servers(&self) -> impl Iterator<Item = IpAddr> {
        self.near.iter().chain(&self.far).copied()
    }
}

/// Whether a connection comes about within half a second.
fn connects(from: &Netns, to: IpAddr, port: u16) -> Result<bool> {
    from.run(|| Ok(TcpStream::connect_timeout(&SocketAddr::new(to, port), Duration::from_millis(500)).is_ok()))
}

/// One thing that is to be so: from where, to where, on which port, and whether it may.
type Claim<'a> = (&'a str, &'a Netns, IpAddr, u16, bool);

/// Tries all at once, since those that are refused take their time.
fn connect_all(claims: &[Claim<'_>]) -> Vec<Result<bool>> {
    thread::scope(|scope| {
        let threads: Vec<_> =
            claims.iter().map(|&(_, from, to, port, _)| scope.spawn(move || connects(from, to, port))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Waits until all claims hold, then checks that they hold a second time.
fn holds(claims: &[Claim<'_>]) -> Result<()> {
    let check = || -> Result<()> {
        let outcomes = connect_all(claims);
        for ((who, _, to, port, may), outcome) in claims.iter().zip(outcomes) {
            let expected = if *may { "a connection" } else { "none" };
            ensure!(outcome? == *may, "{who} to {to} on {port}: expected {expected}");
        }
        Ok(())
    };
    eventually(Duration::from_secs(30), "the policy", check)?;
    check().context("a second time")
}

/// Applies a manifest of examples/policy for as long as the body runs.
fn with_policy(cluster: &Cluster, name: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let path = product::repository(&format!("examples/policy/{name}.yaml"));
    cluster.apply_file(&path)?;
    let outcome = body();
    cluster.kubectl(&["delete", "--filename", &path.display().to_string(), "--ignore-not-found"])?;
    outcome
}

fn default_deny(cluster: &Cluster) -> Result<()> {
    let pods = Pods::find(cluster)?;
    let open: Vec<Claim<'_>> = pods.servers().map(|to| ("client", &pods.client, to, 9090, true)).collect();
    holds(&open)?;
    with_policy(cluster, "default-deny", || {
        let (client, visitor) = (&pods.client, &pods.visitor);
        holds(
            &pods
                .servers()
                .flat_map(|to| [("client", client, to, 9090, false), ("visitor", visitor, to, 9090, false)])
                .collect::<Vec<_>>(),
        )?;
        stays(Duration::from_secs(4), "the kubelet's probes", || {
            cluster.pods_ready("net", "app", Duration::from_secs(1))
        })
    })?;
    holds(&open).context("after the policy is gone")
}

fn one_client_one_port(cluster: &Cluster) -> Result<()> {
    let pods = Pods::find(cluster)?;
    with_policy(cluster, "client-to-http", || {
        let claims = pods.servers().flat_map(|to| {
            [
                ("client", &pods.client, to, 8080, true),
                ("client", &pods.client, to, 9090, false),
                ("visitor", &pods.visitor, to, 8080, false),
            ]
        });
        holds(&claims.collect::<Vec<_>>())
    })
}

fn namespaces(cluster: &Cluster) -> Result<()> {
    let pods = Pods::find(cluster)?;
    with_policy(cluster, "visitors", || {
        let claims = |may: bool| {
            let both = |to| [("client", &pods.client, to, 8080, false), ("visitor", &pods.visitor, to, 8080, may)];
            pods.servers().flat_map(both).collect::<Vec<Claim<'_>>>()
        };
        holds(&claims(true))?;
        cluster.kubectl(&["label", "namespace", "other", "team=strangers", "--overwrite"])?;
        let changed = holds(&claims(false)).context("after the namespace lost its label");
        cluster.kubectl(&["label", "namespace", "other", "team=visitors", "--overwrite"])?;
        changed?;
        holds(&claims(true)).context("after it got it back")
    })
}

fn egress(cluster: &Cluster) -> Result<()> {
    let pods = Pods::find(cluster)?;
    let client = &pods.client;
    with_policy(cluster, "egress", || {
        let claims =
            pods.servers().flat_map(|to| [("client", client, to, 9090, true), ("client", client, to, 8080, false)]);
        let outside = ["192.168.77.1", "fd77::1"].map(|to| ("client", client, to.parse().unwrap(), 9090, false));
        holds(&claims.chain(outside).collect::<Vec<_>>())?;
        for to in [pods.near[0], pods.far[1]] {
            let listener = Netns::of_pod(cluster, "net", if to == pods.near[0] { "near" } else { "far" })?
                .datagrams(SocketAddr::new(to, 9090))?;
            listener.set_read_timeout(Some(Duration::from_millis(500)))?;
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            client.datagrams(any.parse()?)?.send_to(b"not allowed", SocketAddr::new(to, 9090))?;
            ensure!(listener.recv_from(&mut [0; 64]).is_err(), "UDP to {to} is not what the policy allows");
        }
        Ok(())
    })
}

fn cidr(cluster: &Cluster) -> Result<()> {
    let pods = Pods::find(cluster)?;
    let (inside, except) = (["192.168.77.200", "fd77::c8"], ["192.168.77.201", "fd77::c9"]);
    for address in inside.iter().chain(&except) {
        pods.outside.command(&["ip", "address", "replace", address, "dev", "lab0", "nodad"])?;
    }
    let claim = |to: &&str, may| ("client", &pods.client, to.parse().unwrap(), 9090, may);
    holds(&inside.iter().chain(&except).map(|to| claim(to, true)).collect::<Vec<_>>())?;
    with_policy(cluster, "cidr", || {
        let claims = inside.iter().map(|to| claim(to, true)).chain(except.iter().map(|to| claim(to, false)));
        let others = pods.servers().map(|to| ("client", &pods.client, to, 9090, false));
        holds(&claims.chain(others).collect::<Vec<_>>())
    })
}

fn entities(cluster: &Cluster) -> Result<()> {
    let pods = Pods::find(cluster)?;
    pods.outside.command(&["ip", "address", "replace", "192.168.77.200", "dev", "lab0"])?;
    with_policy(cluster, "cluster-only", || {
        let own = pods.servers().map(|to| ("client", &pods.client, to, 9090, true));
        let world = ("client", &pods.client, "192.168.77.200".parse()?, 9090, false);
        holds(&own.chain([world]).collect::<Vec<_>>())
    })
}

/// Dropped flows of the client that both nodes tell of.
fn drops(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for node in cluster.nodes() {
        let words = ["hubble", "observe", "--last=100", "--verdict=DROPPED", "--from-pod=net/client", "-o=json"];
        let said = product::in_agent(cluster, &node, &words)?;
        all.extend(said.lines().filter_map(|line| Some(serde_json::from_str::<Value>(line).ok()?["flow"].clone())));
    }
    Ok(all)
}

fn deny_wins(cluster: &Cluster) -> Result<()> {
    let pods = Pods::find(cluster)?;
    with_policy(cluster, "deny-wins", || {
        let claims = pods
            .servers()
            .flat_map(|to| [("client", &pods.client, to, 9090, false), ("visitor", &pods.visitor, to, 9090, true)]);
        holds(&claims.collect::<Vec<_>>())?;
        for (pod, to) in [("near", pods.near[0]), ("far", pods.far[1])] {
            eventually(Duration::from_secs(10), "the drop in hubble", || {
                let drops = drops(cluster)?;
                let of_it: Vec<_> = drops.iter().filter(|flow| flow["IP"]["destination"] == to.to_string()).collect();
                let named = |flow: &&&Value| flow["ingress_denied_by"].to_string().contains("deny-wins");
                let flow = of_it
                    .iter()
                    .find(named)
                    .with_context(|| format!("no drop on the way to {pod} names the policy: {of_it:?}"))?;
                ensure!(flow["drop_reason_desc"] == "POLICY_DENY", "{flow}");
                ensure!(flow["source"]["pod_name"] == "client" && flow["destination"]["pod_name"] == pod, "{flow}");
                ensure!(flow["destination"]["labels"].to_string().contains("k8s:app=echo"), "{flow}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

fn clusterwide(cluster: &Cluster) -> Result<()> {
    let pods = Pods::find(cluster)?;
    with_policy(cluster, "clusterwide", || {
        let claims = pods.servers().flat_map(|to| {
            [
                ("client", &pods.client, to, 9090, false),
                ("visitor", &pods.visitor, to, 9090, true),
                ("visitor", &pods.visitor, to, 8080, false),
            ]
        });
        holds(&claims.collect::<Vec<_>>())
    })
}

/// A connection to an echo server of the test in a pod.
struct Talk {
    stream: TcpStream,
    asked: u32,
}

impl Talk {
    fn begin(cluster: &Cluster, pod: &str, from: &Netns, to: IpAddr) -> Result<Self> {
        let port = if to.is_ipv4() { 9094 } else { 9096 };
        let listener = Netns::of_pod(cluster, "net", pod)?.listen(port)?;
        thread::spawn(move || {
            let Ok((mut peer, _)) = listener.accept() else { return };
            let mut room = [0; 4];
            while peer.read_exact(&mut room).is_ok() && peer.write_all(&room).is_ok() {}
        });
        let stream = from.connect(SocketAddr::new(to, port))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, asked: 0 })
    }

    /// One question; whether the answer came within a second.
    fn answered(&mut self) -> Result<bool> {
        self.asked += 1;
        self.stream.write_all(&self.asked.to_be_bytes())?;
        self.hear(Duration::from_secs(1))
    }

    /// Reads up to the answer of the last question.
    fn hear(&mut self, limit: Duration) -> Result<bool> {
        self.stream.set_read_timeout(Some(limit))?;
        let mut room = [0; 4];
        loop {
            match self.stream.read_exact(&mut room) {
                Ok(()) if u32::from_be_bytes(room) == self.asked => return Ok(true),
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn live_connections(cluster: &Cluster) -> Result<()> {
    let pods = Pods::find(cluster)?;
    let mut talks = Vec::new();
    for (pod, all) in [("near", &pods.near), ("far", &pods.far)] {
        for to in all {
            talks.push(Talk::begin(cluster, pod, &pods.client, *to)?);
        }
    }
    for talk in &mut talks {
        ensure!(talk.answered()?, "no answer before there is a policy");
    }
    with_policy(cluster, "default-deny", || {
        for talk in &mut talks {
            eventually(Duration::from_secs(20), "the connection is cut", || match talk.answered()? {
                true => bail!("it still answers"),
                false => Ok(()),
            })?;
            ensure!(!talk.hear(Duration::from_secs(1))?, "an answer came after all");
        }
        Ok(())
    })?;
    for talk in &mut talks {
        ensure!(talk.hear(Duration::from_secs(30))?, "the connection does not go on after the policy is gone");
        ensure!(talk.answered()?, "no answer after the policy is gone");
    }
    Ok(())
}
