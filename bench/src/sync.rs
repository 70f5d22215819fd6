// SPDX-License-Identifier: Apache-2.0
//! How long the feature of Services takes to bring very many into the kernel's maps, to go on after a restart, and to bring one change there.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::lb::{SCOPE_EXTERNAL, ServiceKey, SlotKey};
use abi::maps;
use anyhow::{Context as _, Result, anyhow, ensure};
use datapath::bpf::{Datapath, Options};
use datapath::{Epochs, Kernel as _, Map, fake};
use model::config::Group as _;
use model::{NodeName, Protocol, ServiceName};
use nix::mount::{MsFlags, mount};
use services::{Config, EndpointSlice, Inputs, Port, Service, ServicePort, SliceEndpoint, SliceName};
use statedb::{Tasks, Writer};
use surface::Surface;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::collect::resident_kib;
use crate::report::Figure;

/// Services, and endpoints of each.
const SERVICES: u32 = 30_000;
const ENDPOINTS: u32 = 4;
/// Single changes, of Services all over the table.
const CHANGES: u32 = 1000;
const PORT: u16 = 80;
const BPFFS: &str = "/run/netns/sync";
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures with maps of the kernel and tables of its own: neither API server nor socket programs are part of it.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    fs::create_dir_all(BPFFS).context("cannot create a folder for the bpf file system")?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).context("cannot mount bpf")?;
    let options = Options { bpffs: Path::new(BPFFS).to_owned(), ..Options::default() };
    let kernel = Arc::new(Datapath::load(&options).context("cannot load the programs")?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let entered = runtime.enter();
    let before = resident_kib()?;
    let (mut feature, empty) = Feature::start(&kernel)?;
    let more = (resident_kib()? - before) / 1024.0;
    let changes = feature.change(&kernel)?;
    runtime.block_on(feature.tasks.end())?;
    let (feature, full) = Feature::start(&kernel)?;
    runtime.block_on(feature.tasks.end())?;
    drop(entered);
    let what = format!("{SERVICES} Services with {ENDPOINTS} endpoints each");
    Ok(vec![
        Figure::new(format!("{what}, into empty maps"), "ours", clock::milliseconds(empty), "ms").target("< 2000"),
        Figure::new(format!("{what}, tables and maps' reconciler resident"), "ours", more, "MiB"),
        Figure::times("of these, one endpoint changed, until a new connection goes there", "ours", &changes)
            .target("p99 < 5"),
        Figure::new(format!("{what}, after a restart"), "ours", clock::milliseconds(full), "ms").target("< 3000"),
    ])
}

/// The feature as the agent starts it.
struct Feature {
    slices: Writer<EndpointSlice>,
    surface: Surface,
    tasks: Running,
    /// Tables whose writers nobody uses; without them they would end.
    _kept: Box<dyn std::any::Any>,
}

/// Tasks until they are told to end.
struct Running(Tasks);

impl Running {
    async fn end(self) -> Result<()> {
        self.0.token().cancel();
        self.0.run_until_failure().await.map_err(|failure| anyhow!("{failure}"))
    }
}

impl Feature {
    /// Starts it, and returns once all Services are in the maps, with how long that took.
    fn start(kernel: &Arc<Datapath>) -> Result<(Self, Duration)> {
        let (mut services, service_reader) = statedb::table("k8s-services");
        let (mut slices, slice_reader) = statedb::table("k8s-endpointslices");
        services.replace((0..SERVICES).map(service));
        slices.replace((0..SERVICES).map(|number| slice(number, 0)));
        let (mut redirects, redirect_reader) = statedb::table("local-redirect-policies");
        let (mut intercepts, intercept_reader) = statedb::table("intercepts");
        let (mut pods, pod_reader) = statedb::table("k8s-pods");
        let (mut nodes, node_reader) = statedb::table("nodes");
        let (mut addresses, address_reader) = statedb::table("node-addresses");
        redirects.mark_initialized();
        intercepts.mark_initialized();
        pods.mark_initialized();
        nodes.mark_initialized();
        addresses.mark_initialized();
        let inputs = Inputs {
            services: service_reader,
            slices: slice_reader,
            redirects: redirect_reader,
            intercepts: intercept_reader,
            pods: pod_reader,
            node: NodeName { cluster: "default".to_owned(), name: "n1".to_owned() },
            nodes: node_reader,
            addresses: address_reader,
            own_node: statedb::table("own-node").1,
            before_stack: tokio::sync::watch::channel(Default::default()).1,
            maps: Arc::clone(kernel) as Arc<dyn datapath::Kernel>,
            hooks: Arc::new(fake::Hooks::default()),
            sockets: Arc::new(fake::Sockets::default()),
            epochs: Epochs::open(kernel)?,
        };
        let config = [("kube-proxy-replacement".to_owned(), "true".to_owned())];
        let config = Config::parse(&config.into()).map_err(|errors| anyhow!("{errors:?}"))?;
        let tasks = Tasks::new(CancellationToken::new());
        let begin = clock::now();
        services.mark_initialized();
        slices.mark_initialized();
        let outputs = services::start(&config, inputs, &tasks)?;
        let kept = Box::new((services, redirects, intercepts, pods, nodes, addresses));
        let feature = Self { slices, surface: outputs.surface, tasks: Running(tasks), _kept: kept };
        let took = until(begin, || Ok(feature.written()? >= u64::from(SERVICES)))?;
        Ok((feature, took))
    }

    /// Frontends that the reconciler has written or found to be right.
    fn written(&self) -> Result<u64> {
        let health = self.surface.reconcilers();
        let maps = health.iter().find(|health| health.name == "services-maps").context("no reconciler of the maps")?;
        ensure!(maps.failing == 0, "{}", maps.message);
        Ok(maps.successes)
    }

    /// Replaces an endpoint of one Service after the other; milliseconds from each change to the maps.
    fn change(&mut self, kernel: &Arc<Datapath>) -> Result<Vec<f64>> {
        let maps = Maps { services: kernel.map()?, slots: kernel.map()?, backends: kernel.map()? };
        let mut took = Vec::new();
        for change in 0..CHANGES {
            let number = change * (SERVICES / CHANGES);
            let begin = clock::now();
            self.slices.insert(slice(number, 1));
            self.slices.commit();
            let spent = until(begin, || maps.lead_to(number, endpoint(number, 0, 1)))?;
            took.push(clock::milliseconds(spent));
        }
        Ok(took)
    }
}

/// The maps as the programs read them.
struct Maps {
    services: Map<maps::Services>,
    slots: Map<maps::Slots>,
    backends: Map<maps::Backends>,
}

impl Maps {
    /// Whether some new connections to a Service go to this address.
    fn lead_to(&self, number: u32, address: IpAddr) -> Result<bool> {
        let addr = address_of(number).into();
        let key = ServiceKey { addr, port: PORT.to_be(), proto: 6, scope: SCOPE_EXTERNAL, pad: 0 };
        let service = self.services.get(&key)?.context("the Service is in no map")?;
        for slot in 0..service.count {
            let Some(id) = self.slots.get(&SlotKey { service: service.id, slot })? else { continue };
            if self.backends.get(&id)?.is_some_and(|backend| IpAddr::from(backend.addr) == address) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Looks without a pause, and says how long it took from the beginning.
fn until(begin: Instant, mut is_so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    while !is_so()? {
        ensure!(begin.elapsed() < PATIENCE, "not within {} s", PATIENCE.as_secs());
        std::thread::yield_now();
    }
    Ok(begin.elapsed())
}

fn name(number: u32) -> ServiceName {
    ServiceName::new("bench", format!("s{number:06}"))
}

fn address_of(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + number).into()
}

fn endpoint(number: u32, place: u32, generation: u32) -> IpAddr {
    let first = Ipv4Addr::new(10, 128, 0, 1).to_bits();
    Ipv4Addr::from_bits(first + generation * SERVICES * ENDPOINTS + number * ENDPOINTS + place).into()
}

fn service(number: u32) -> Service {
    let port = ServicePort { name: None, protocol: Protocol::Tcp, port: PORT, node_port: None };
    Service { name: name(number), cluster_ips: vec![address_of(number)], ports: vec![port], ..Service::default() }
}

/// Its endpoints; the first is one of this generation.
fn slice(number: u32, generation: u32) -> EndpointSlice {
    let endpoints = (0..ENDPOINTS).map(|place| SliceEndpoint {
        ip: endpoint(number, place, if place == 0 { generation } else { 0 }),
        node: None,
        zone: None,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
        ready: true,
        serving: true,
        terminating: false,
    });
    let service = name(number);
    EndpointSlice {
        name: SliceName { namespace: "bench".into(), name: format!("s{number:06}").into() },
        ports: vec![Port { name: None, protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.collect(),
        service,
        problems: Vec::new(),
    }
}
