// SPDX-License-Identifier: Apache-2.0
//! The attack: all guns fire again and again, agents are killed meanwhile, and at the end it is told what arrived.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lab::clock::{self, breathe};
use lab::probe::{Cluster, eventually};
use lab::product;
use lab::wire::Wire;

use crate::book::{Book, Gun};
use crate::controls::Controls;
use crate::duels::flood::{self, Idle};
use crate::duels::masquerade::{self, Questions};
use crate::duels::replies::{self, CHANGES, Pushes};
use crate::scene::{FAMILIES, PORT, Party, Scene};
use crate::ways::{self, chosen};
use crate::witness::{Sightings, Witnesses};

/// How long it lasts at least, unless `CILIUM_ATTACK_SECONDS` says so.
const SECONDS: u64 = 25;
/// Between two rounds of a gun.
const PAUSE: Duration = Duration::from_millis(50);
/// How much longer than asked for anybody fires, whatever happens to what is waited for.
const LONGER: Duration = Duration::from_secs(300);
/// The kubelet waits longer each time before it starts a container again.
const ANOTHER_AGENT: Duration = Duration::from_secs(120);
const EXAMPLES: usize = 6;

/// What went through, by way.
type Failures = BTreeMap<&'static str, Vec<String>>;

/// One attack on a cluster.
pub(crate) fn attack(cluster: &Cluster, native: bool) -> Result<()> {
    let seconds = std::env::var("CILIUM_ATTACK_SECONDS").ok().map_or(Ok(SECONDS), |text| text.parse());
    let seconds = seconds.context("CILIUM_ATTACK_SECONDS is not a number")?;
    let scene = Scene::find(cluster, native)?;
    policy_holds(&scene)?;
    let mut book = ways::all(&scene);
    let questions = chosen(masquerade::NAME).then(|| Questions::begin(&scene, &mut book)).transpose()?;
    let idle = chosen(flood::NAME).then(|| Idle::begin(&scene)).transpose()?;
    let pushes = chosen(replies::NAME).then(|| Pushes::begin(&scene)).transpose()?;
    let controls = Controls::begin(&scene)?;
    let witnesses = Witnesses::begin(&scene)?;
    let end = clock::now() + Duration::from_secs(seconds);
    let siege = Siege { cluster, scene: &scene, book: &book, controls: &controls, questions: questions.as_ref(), end };
    let mut failures = siege.run(pushes, idle)?;
    drop((questions, controls));
    let sightings = witnesses.finish()?;
    if let Some(missing) = missing(&book, &sightings) {
        bail!("what is allowed did not arrive, so that nothing is shown: {missing}");
    }
    for (way, found) in arrived(&scene, &book, &sightings) {
        failures.entry(way).or_default().extend(found);
    }
    tell(&book, &failures, if native { "native" } else { "vxlan" })
}

/// The attacker is refused where the friend is not.
fn policy_holds(scene: &Scene) -> Result<()> {
    for (victim, family) in scene.victims().into_iter().flat_map(|victim| FAMILIES.map(|family| (victim, family))) {
        let at = std::net::SocketAddr::new(victim.addresses[family], PORT);
        let _listener = victim.netns.run(|| Ok(std::net::TcpListener::bind(at)?))?;
        let reaches = |from: &Party| {
            let limit = Duration::from_millis(500);
            from.netns.run(|| Ok(std::net::TcpStream::connect_timeout(&at, limit).is_ok()))
        };
        eventually(Duration::from_secs(30), "the policy", || {
            ensure!(reaches(&scene.friend)?, "the friend does not reach {at}");
            ensure!(!reaches(&scene.attacker)?, "the attacker reaches {at}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Everything that goes on at once.
struct Siege<'a> {
    cluster: &'a Cluster,
    scene: &'a Scene,
    book: &'a Book,
    controls: &'a Controls,
    questions: Option<&'a Questions>,
    end: Instant,
}

impl Siege<'_> {
    fn run(&self, mut pushes: Option<Pushes>, idle: Option<Idle>) -> Result<Failures> {
        let stop = AtomicBool::new(false);
        let guns = Gun::ALL;
        let rounds: [AtomicU32; Gun::ALL.len()] = Default::default();
        let (stopped, counters) = (&stop, &rounds);
        let outcome = thread::scope(|scope| {
            let firing: Vec<_> = guns
                .into_iter()
                .zip(counters)
                .map(|(gun, count)| scope.spawn(move || self.fire(gun, stopped, count)))
                .collect();
            let flooding = idle.is_some().then(|| scope.spawn(|| flood::flood(self.scene)));
            let outcome = self.meanwhile(pushes.as_mut());
            stop.store(true, Ordering::Relaxed);
            let flood = flooding.map(|thread| thread.join().map_err(|_| anyhow!("the flood ended"))?).transpose();
            for thread in firing {
                thread.join().map_err(|_| anyhow!("a gun broke"))??;
            }
            outcome.map(|kills| (kills, flood))
        });
        let (kills, flood) = outcome?;
        if let Some(flows) = flood? {
            println!("    a flood of {flows} flows");
        }
        let rounds: Vec<u32> = rounds.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        println!("    {kills} agents killed; rounds of {guns:?}: {rounds:?}");
        ensure!(rounds.iter().all(|count| *count >= 5), "a gun fired less than five rounds");
        self.go_on().context("after the attack")?;
        product::ready(self.cluster)?;
        let mut failures = Failures::new();
        failures.insert(replies::NAME, pushes.map(Pushes::finish).unwrap_or_default());
        failures.insert(flood::NAME, idle.map(Idle::finish).unwrap_or_default());
        Ok(failures)
    }

    /// All shots of a gun, one round after the other.
    fn fire(&self, gun: Gun, stop: &AtomicBool, rounds: &AtomicU32) -> Result<()> {
        let wire = Wire::sending(&gun.of(self.scene).netns, "eth0")?;
        while !stop.load(Ordering::Relaxed) && clock::now() < self.end + LONGER {
            if gun == Gun::Attacker {
                self.scene.keep_alive();
            }
            for frame in self.book.of(gun).flat_map(|shot| &shot.frames) {
                // A full queue loses frames; the next round sends them again.
                let _ = wire.send(frame);
            }
            rounds.fetch_add(1, Ordering::Relaxed);
            breathe(PAUSE);
        }
        Ok(())
    }

    /// Agents are killed, permissions taken away, and what is allowed goes on; answers with the number of agents killed.
    fn meanwhile(&self, mut pushes: Option<&mut Pushes>) -> Result<usize> {
        self.go_on()?;
        let nodes = self.cluster.nodes();
        let mut kills = 0;
        for node in &nodes {
            self.kill(node)?;
            kills += 1;
        }
        self.go_on().context("after both agents were killed")?;
        if let Some(pushes) = pushes.take() {
            CHANGES.into_iter().try_for_each(|change| pushes.change(self.cluster, self.scene, change))?;
        }
        for node in nodes.iter().cycle() {
            if clock::now() >= self.end {
                break;
            }
            self.kill(node)?;
            kills += 1;
            self.go_on().with_context(|| format!("after the agent of {node} was killed again"))?;
        }
        Ok(kills)
    }

    fn go_on(&self) -> Result<()> {
        self.controls.go_on()?;
        self.questions.map_or(Ok(()), Questions::go_on)
    }

    /// Kills an agent and waits for the next one.
    fn kill(&self, node: &str) -> Result<()> {
        let process = || self.cluster.shell(node, "pgrep -f '^cilium-agent' | head -n 1");
        let old = process()?;
        self.cluster.fault("kill", &format!("{node}/agent"))?;
        eventually(ANOTHER_AGENT, &format!("another agent on {node}"), || {
            let new = process()?;
            ensure!(!new.is_empty() && new != old, "there is '{new}' after '{old}'");
            self.cluster.shell(node, "curl -fsS http://127.0.0.1:9879/healthz").map(drop)
        })
    }
}

/// Shots that are allowed and arrived nowhere.
fn missing(book: &Book, sightings: &Sightings) -> Option<String> {
    let lost = book
        .iter()
        .filter(|(number, shot)| shot.reaches.is_some_and(|place| !sightings.contains_key(&(*number, place))));
    let lost: Vec<String> = lost.map(|(_, shot)| format!("{}: {}", shot.way, shot.what)).collect();
    (!lost.is_empty()).then(|| format!("{} shots, among them\n        {}", lost.len(), examples(&lost)))
}

/// What arrived where it must not. What comes back to whom fired it is an answer.
fn arrived(scene: &Scene, book: &Book, sightings: &Sightings) -> Failures {
    let mut failures = Failures::new();
    for ((number, place), count) in sightings {
        let Some(shot) = book.get(*number) else { continue };
        if shot.reaches != Some(*place) && shot.gun.of(scene).name != *place {
            failures.entry(shot.way).or_default().push(format!("{} [{count} times at {place}]", shot.what));
        }
    }
    failures
}

/// Says how each way went; all of what went through is in a file, a few examples are in the error.
fn tell(book: &Book, failures: &Failures, name: &str) -> Result<()> {
    for way in book.ways() {
        let shots = book.iter().filter(|(_, shot)| shot.way == way && shot.reaches.is_none()).count();
        let through = failures.get(way).map_or(0, Vec::len);
        println!("    {way}: {shots} shots, {through} arrived");
    }
    let found = || failures.iter().filter(|(_, found)| !found.is_empty());
    if found().next().is_none() {
        return Ok(());
    }
    let file = product::repository(&format!("target/attack-{name}.txt"));
    let all: String = found().flat_map(|(way, found)| found.iter().map(move |one| format!("{way}: {one}\n"))).collect();
    std::fs::write(&file, all).with_context(|| format!("cannot write {}", file.display()))?;
    let few =
        found().map(|(way, found)| format!("{way}: {} times, among them\n        {}", found.len(), examples(found)));
    let few: Vec<String> = few.collect();
    bail!("what is forbidden went through, all of it in {}:\n      {}", file.display(), few.join("\n      "))
}

/// A few that are not all of a kind.
fn examples(all: &[String]) -> String {
    let step = all.len().div_ceil(EXAMPLES).max(1);
    all.iter().step_by(step).map(String::as_str).collect::<Vec<_>>().join("\n        ")
}
