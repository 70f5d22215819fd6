// SPDX-License-Identifier: Apache-2.0
//! Golden tests: of each `tests/golden/NAME.yaml`, what follows for the proxy and for the authors is in `NAME.txt`;
//! `UPDATE_GOLDEN=1` writes what is seen into it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::World;
use gateway::Serving;
use std::path::Path;

#[tokio::test(start_paused = true)]
async fn objects_are_served_and_judged_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut differing = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        let serving = Serving { ipv4: true, alpn: true, app_protocol: true, ..Serving::default() };
        let mut world = World::new(&serving);
        world.apply(&std::fs::read_to_string(path).unwrap());
        world.settle().await;
        let seen = format!("# said\n\n{}\n# made\n\n{}\n# served\n\n{}", world.said(), world.made(), world.served());
        assert_eq!(world.not_taken(), [""; 0]);
        world.end().await;
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &seen).unwrap();
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != seen {
            differing.push(format!("{}:\n{seen}", expected.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
