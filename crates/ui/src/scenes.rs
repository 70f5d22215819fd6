// SPDX-License-Identifier: Apache-2.0
//! Which namespaces are looked at. Each is followed once, however many look at it, and for a while after the last has gone: whoever changes a
//! filter or loads the page again finds it as it was.

use crate::follow::follow;
use crate::relay::Relay;
use crate::scene::Scene;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, interval};
use tokio_util::task::AbortOnDropHandle;

/// The most viewers, and namespaces that are followed, at the same time.
pub(crate) const VIEWERS: usize = 64;
pub(crate) const SCENES: usize = 16;
/// How long a namespace is followed without a viewer.
const LINGER: Duration = Duration::from_secs(60);
/// Between looks for what is old.
const SWEEP: Duration = Duration::from_secs(10);

pub(crate) type Shared = Arc<Mutex<Scene>>;

/// All of them.
pub(crate) struct Scenes {
    relay: Relay,
    open: Mutex<BTreeMap<String, Open>>,
    viewers: Arc<Semaphore>,
}

struct Open {
    scene: Shared,
    /// Shared with each viewer.
    watched: Arc<()>,
    left: Instant,
    _following: AbortOnDropHandle<()>,
}

/// A viewer's right to look.
pub(crate) struct Seat {
    pub(crate) scene: Shared,
    _watching: Arc<()>,
    _permit: OwnedSemaphorePermit,
}

/// There are too many already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{VIEWERS} viewers are all that are served at the same time")]
    Viewers,
    #[error("{SCENES} namespaces are all that are followed at the same time")]
    Scenes,
}

impl Scenes {
    pub(crate) fn new(relay: Relay) -> Arc<Self> {
        let viewers = Arc::new(Semaphore::new(VIEWERS));
        Arc::new(Self { relay, open: Mutex::default(), viewers })
    }

    /// Looks at a namespace, or at all of them if it is empty.
    pub(crate) fn look(&self, namespace: &str) -> Result<Seat, Full> {
        let permit = Arc::clone(&self.viewers).try_acquire_owned().map_err(|_| Full::Viewers)?;
        let mut open = self.open.lock();
        if !open.contains_key(namespace) && open.len() >= SCENES {
            let idle = open.iter().filter(|(_, scene)| !scene.is_watched()).min_by_key(|(_, scene)| scene.left);
            let idle = idle.map(|(name, _)| name.clone()).ok_or(Full::Scenes)?;
            open.remove(&idle);
        }
        let scene = open.entry(namespace.to_owned()).or_insert_with(|| self.open(namespace));
        let (scene, watching) = (Arc::clone(&scene.scene), Arc::clone(&scene.watched));
        Ok(Seat { scene, _watching: watching, _permit: permit })
    }

    /// One that is followed, watched or not.
    pub(crate) fn find(&self, namespace: &str) -> Option<Shared> {
        self.open.lock().get(namespace).map(|open| Arc::clone(&open.scene))
    }

    fn open(&self, namespace: &str) -> Open {
        let scene = Arc::new(Mutex::new(Scene::new()));
        let following = follow(self.relay.clone(), namespace.to_owned(), Arc::clone(&scene));
        Open {
            scene,
            watched: Arc::default(),
            left: Instant::now(),
            _following: AbortOnDropHandle::new(tokio::spawn(following)),
        }
    }

    /// Gives up what nobody looks at any more, and takes out what is old, for ever.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut ticks = interval(SWEEP);
        loop {
            ticks.tick().await;
            let scenes: Vec<_> = {
                let mut open = self.open.lock();
                open.values_mut().filter(|open| open.is_watched()).for_each(|open| open.left = Instant::now());
                open.retain(|_, open| open.left.elapsed() < LINGER);
                open.values().map(|open| Arc::clone(&open.scene)).collect()
            };
            for scene in scenes {
                scene.lock().sweep(now());
            }
        }
    }
}

impl Open {
    fn is_watched(&self) -> bool {
        Arc::strong_count(&self.watched) > 1
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    hubble::now() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use clap::Parser as _;

    /// Nobody answers there.
    fn scenes() -> Arc<Scenes> {
        Scenes::new(Relay::new(&Config::parse_from(["hubble-ui", "--server=127.0.0.1:1"])))
    }

    #[tokio::test(start_paused = true)]
    async fn viewers_and_namespaces_are_bounded_and_who_leaves_makes_room() {
        let scenes = scenes();
        let mut seats: Vec<_> = (0..SCENES).map(|n| scenes.look(&format!("ns-{n}")).unwrap()).collect();
        assert_eq!(scenes.look("one-more").err(), Some(Full::Scenes));
        seats.truncate(SCENES - 1);
        seats.push(scenes.look("one-more").unwrap());
        assert!(scenes.find(&format!("ns-{}", SCENES - 1)).is_none(), "the one that nobody looked at");
        while seats.len() < VIEWERS {
            seats.push(scenes.look("ns-0").unwrap());
        }
        assert_eq!(scenes.look("ns-0").err(), Some(Full::Viewers));
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_is_followed_for_a_while_after_the_last_viewer() {
        let scenes = scenes();
        let sweeping = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&scenes).sweep()));
        let seat = scenes.look("shop").unwrap();
        tokio::time::sleep(LINGER * 3).await;
        let before = scenes.find("shop").unwrap();
        drop(seat);
        tokio::time::sleep(LINGER / 2).await;
        let seat = scenes.look("shop").unwrap();
        assert!(Arc::ptr_eq(&seat.scene, &before));
        drop(seat);
        tokio::time::sleep(LINGER * 2).await;
        assert!(scenes.find("shop").is_none());
        drop(sweeping);
    }
}
