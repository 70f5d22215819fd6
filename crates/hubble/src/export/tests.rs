// SPDX-License-Identifier: Apache-2.0
//! Flows in, lines out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::file::{LogFile, Rotation, backups};
use super::{Counts, Exporters, FlowLog, Writer};
use crate::config::Config;
use crate::fixture;
use crate::proto::flow::LostEvent;
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::server::Problems;
use crate::service::Workers;
use crate::store::Store;
use flate2::read::MultiGzDecoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const DEADLINE: Duration = Duration::from_secs(20);

fn exporters() -> Exporters {
    let store = Arc::new(Store::new(&Config::default(), "n1", fixture::tables().tables));
    Exporters {
        pace: Duration::from_millis(10),
        ..Exporters::new(store, Problems::default(), Duration::from_secs(1), Workers::default())
    }
}

fn log(value: Value) -> FlowLog {
    serde_json::from_value(value).unwrap()
}

/// Pushes packets, which are taken in as they come, until the file has what is looked for.
async fn until(exporters: &Exporters, path: &Path, looked_for: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let wait = timeout(DEADLINE, async {
        loop {
            exporters.store.push(&fixture::allowed_syn());
            exporters.store.push(&fixture::denied_syn());
            tokio::time::sleep(Duration::from_millis(5)).await;
            let text = std::fs::read_to_string(path).unwrap_or_default();
            // The last line may be on its way.
            let text = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if looked_for(&lines) {
                return lines;
            }
        }
    });
    wait.await.expect("the lines")
}

#[tokio::test]
async fn flows_that_are_wanted_are_lines_with_the_fields_that_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/events.log");
    let wanted = json!({
        "name": "drops",
        "filePath": path,
        "fieldMask": ["verdict", "source.pod_name"],
        "includeFilters": [{"verdict": ["DROPPED"]}],
        "excludeFilters": [{"event_type": [{"type": 5}]}],
    });
    let exporters = exporters();
    let _running =
        AbortOnDropHandle::new(tokio::spawn(exporters.clone().export(log(wanted), CancellationToken::new())));
    let lines = until(&exporters, &path, |lines| lines.len() > 2).await;
    for line in lines {
        assert_eq!(line["flow"], json!({"verdict": "DROPPED", "source": {"pod_name": "db-0"}}), "{line}");
        assert_eq!(line["node_name"], "n1");
        assert!(line["time"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn flows_that_are_alike_are_written_together_and_none_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    let wanted = |interval: &str| {
        let mask = json!(["verdict", "destination.pod_name"]);
        json!({"name": "a", "filePath": path, "fieldAggregate": mask, "aggregationInterval": interval})
    };
    let exporters = exporters();
    let running =
        AbortOnDropHandle::new(tokio::spawn(exporters.clone().export(log(wanted("50ms")), CancellationToken::new())));
    let lines = until(&exporters, &path, |lines| lines.len() > 3).await;
    let alike = json!({"verdict": "FORWARDED", "destination": {"pod_name": "db-0"}});
    for line in &lines {
        let mut flow = line["flow"].clone();
        let counts = flow.as_object_mut().unwrap().remove("aggregate").unwrap();
        assert!(counts["ingress_flow_count"].as_u64() > Some(0), "{line}");
        assert!(flow == alike || flow["verdict"] == "DROPPED", "{line}");
    }
    running.abort();
    let _ = running.await;
    // What it has counted when it ends is written, though nothing is due.
    std::fs::remove_file(&path).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(exporters.clone().export(log(wanted("1h")), stop.clone()));
    let (other, unmasked) = (dir.path().join("other.log"), CancellationToken::new());
    let witness = json!({"name": "b", "filePath": other});
    let _witness = AbortOnDropHandle::new(tokio::spawn(exporters.clone().export(log(witness), unmasked)));
    until(&exporters, &other, |lines| lines.len() > 100).await;
    stop.cancel();
    timeout(DEADLINE, running).await.expect("the end").unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[tokio::test]
async fn a_file_says_what_is_exported_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (config, path) = (dir.path().join("flowlogs.yaml"), dir.path().join("a.log"));
    let other = dir.path().join("b.log");
    let exporters = exporters();
    let write = |text: String| {
        // As the kubelet does: nobody reads half of it.
        std::fs::write(dir.path().join("next"), text).unwrap();
        std::fs::rename(dir.path().join("next"), &config).unwrap();
    };
    write(format!("flowLogs: [{{name: a, filePath: {}}}]", path.display()));
    let counts = Counts::default();
    let following = exporters.clone().follow(config.clone(), counts.clone(), CancellationToken::new());
    let _running = AbortOnDropHandle::new(tokio::spawn(following));
    until(&exporters, &path, |lines| !lines.is_empty()).await;
    for (failures, (bad, part)) in (1..).zip([
        ("flowLogs: [{name: a}]", "filePath"),
        ("flowLogs: [{name: a, filePath: /x, includeFilters: [{colour: 1}]}]", "\"a\""),
        ("flowLogs: [{name: a, filePath: /x, includeFilters: [{source_ip: [nowhere]}]}]", "source_ip"),
        ("flowLogs: [{name: a, filePath: /x, fieldMask: [colour]}]", "colour"),
        ("flowLogs: [{name: a, filePath: /x}, {name: b, filePath: /x}]", "\"b\""),
        ("flowLogs: [{name: a, filePath: /x, fieldAggregates: [source]}]", "fieldAggregates"),
        ("flowLogs: [{name: a, filePath: /x, fieldAggregate: [verdict]}]", "want an aggregationInterval"),
        ("flowLogs: [{name: a, filePath: /x, aggregationInterval: 5s}]", "want a fieldAggregate"),
        ("flowLogs: [{name: a, filePath: /x, fieldAggregate: [colour], aggregationInterval: 5s}]", "fieldAggregate: "),
        (
            "flowLogs: [{name: a, filePath: /x, fieldAggregate: [verdict], aggregationInterval: often}]",
            "aggregationInterval",
        ),
        ("]", "flowlogs.yaml"),
    ]) {
        write(bad.to_owned());
        let before = std::fs::read_to_string(&path).unwrap().lines().count();
        // What the last one was refused for may name the same.
        let counted = format!("hubble_dynamic_exporter_reconfigurations_total{{op=\"failure\"}} {failures}");
        until(&exporters, &path, |lines| {
            page(&counts).contains(&counted)
                && exporters.problems.lock().get("flow logs").is_some_and(|problem| problem.contains(part))
                && lines.len() > before
        })
        .await;
    }
    write(format!("flowLogs: [{{name: b, filePath: {}}}]", other.display()));
    until(&exporters, &other, |lines| !lines.is_empty()).await;
    let left = std::fs::read(&path).unwrap().len();
    until(&exporters, &other, |lines| lines.len() > 20).await;
    assert_eq!(std::fs::read(&path).unwrap().len(), left, "what is not named any more has ended");
    assert!(exporters.problems.lock().is_empty(), "{:?}", exporters.problems.lock());
    let ended = format!("flowLogs: [{{name: b, filePath: {}, end: \"2020-01-31T12:00:00Z\"}}]", other.display());
    write(ended.clone());
    until(&exporters, &other, |_| page(&counts).contains(&"hubble_dynamic_exporter_up{name=\"b\"} 0".to_owned())).await;
    let page = page(&counts);
    for line in [
        "hubble_dynamic_exporter_exporters_total{status=\"active\"} 0",
        "hubble_dynamic_exporter_exporters_total{status=\"inactive\"} 1",
        "hubble_dynamic_exporter_reconfigurations_total{op=\"add\"} 2",
        "hubble_dynamic_exporter_reconfigurations_total{op=\"update\"} 1",
        "hubble_dynamic_exporter_reconfigurations_total{op=\"remove\"} 1",
        "hubble_dynamic_exporter_reconfigurations_total{op=\"failure\"} 11",
        &format!("hubble_dynamic_exporter_config_hash {}", crc32fast::hash(ended.as_bytes())),
    ] {
        assert!(page.iter().any(|found| found == line), "{line} is missing in {page:#?}");
    }
}

/// The samples of the exporters.
fn page(counts: &Counts) -> Vec<String> {
    let (mut registry, mut text) = (Registry::with_prefix("hubble"), String::new());
    counts.register(&mut registry);
    encode(&mut text, &registry).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_file_that_somebody_deletes_cuts_or_puts_aside_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    let rotation = Rotation { size: 1 << 20, backups: 0, compress: false };
    let mut writer = Writer { file: None, path: path.clone(), rotation, lost: 0 };
    let aside = dir.path().join("aside");
    let deeds: [&dyn Fn(); 5] = [
        &|| (),
        &|| std::fs::remove_file(&path).unwrap(),
        &|| std::fs::rename(&path, &aside).unwrap(),
        &|| std::fs::write(&path, "").unwrap(),
        &|| std::fs::write(&path, "another\nha").unwrap(),
    ];
    let mut found = Vec::new();
    for (number, deed) in deeds.into_iter().enumerate() {
        deed();
        writer.append(format!("{number}\n").as_bytes()).await.unwrap();
        found.push(std::fs::read_to_string(&path).unwrap());
    }
    assert_eq!(found, ["0\n", "1\n", "2\n", "3\n", "another\n4\n"]);
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), "1\n");
    // Where it cannot be, that is an error, and not forgotten.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    writer.append(b"5\n").await.unwrap_err();
}

#[tokio::test]
async fn nothing_is_written_through_a_link_or_to_a_pipe_that_took_the_place_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("events.log"), dir.path().join("other"));
    let rotation = Rotation { size: 1 << 20, backups: 0, compress: false };
    let mut writer = Writer { file: None, path: path.clone(), rotation, lost: 0 };
    let deeds: [(&str, &dyn Fn()); 3] = [
        ("symbolic link", &|| std::os::unix::fs::symlink(&other, &path).unwrap()),
        // It leads to the file that was written to.
        ("symbolic link", &|| std::os::unix::fs::symlink(dir.path().join("aside"), &path).unwrap()),
        ("regular file", &|| nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
    ];
    for (want, deed) in deeds {
        // No line of ours: it would be cut.
        std::fs::write(&other, "theirs").unwrap();
        writer.append(b"1\n").await.unwrap();
        std::fs::rename(&path, dir.path().join("aside")).unwrap();
        deed();
        let error = timeout(DEADLINE, writer.append(b"2\n")).await.unwrap().unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "theirs");
        assert_eq!(std::fs::read_to_string(dir.path().join("aside")).unwrap(), "1\n");
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn what_could_not_be_written_is_said_when_it_can_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    std::fs::create_dir(&path).unwrap();
    let exporters = exporters();
    let wanted = json!({"name": "all", "filePath": path});
    let _running =
        AbortOnDropHandle::new(tokio::spawn(exporters.clone().export(log(wanted), CancellationToken::new())));
    let problem = || exporters.problems.lock().get("export all").is_some_and(|problem| problem.contains("events.log"));
    until(&exporters, &dir.path().join("no such file"), |_| problem()).await;
    std::fs::remove_dir(&path).unwrap();
    let lines = until(&exporters, &path, |lines| lines.len() > 2 && !problem()).await;
    let lost = lines[0]["lost_events"]["num_events_lost"].as_str().unwrap();
    assert!(lost.parse::<u64>().unwrap() >= 5, "{lost}");
    assert!(lines[1..].iter().all(|line| line["flow"].is_object()));
}

#[tokio::test]
async fn a_flow_log_ends_when_it_says() {
    let dir = tempfile::tempdir().unwrap();
    for end in ["2020-01-31T12:00:00Z", "0001-01-01T00:00:00Z"] {
        let wanted = json!({"name": "a", "filePath": dir.path().join("a.log"), "end": end});
        timeout(DEADLINE, exporters().export(log(wanted), CancellationToken::new())).await.expect("the end");
    }
}

#[tokio::test]
async fn an_exporter_that_fails_is_named_until_it_is_gone_whatever_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, good) = (dir.path().join("bad.log"), dir.path().join("good.log"));
    std::fs::create_dir(&bad).unwrap();
    let exporters = exporters();
    let start = |name: &str, path: &Path| {
        let log = log(json!({"name": name, "filePath": path}));
        AbortOnDropHandle::new(tokio::spawn(exporters.clone().export(log, CancellationToken::new())))
    };
    let failing = start("bad", &bad);
    let named = || exporters.problems.lock().contains_key("export bad");
    until(&exporters, &good, |_| named()).await;
    let _fine = start("good", &good);
    let lines = until(&exporters, &good, |lines| lines.len() > 10).await.len();
    assert!(named());
    failing.abort();
    until(&exporters, &good, |all| all.len() > lines && !named()).await;
}

#[tokio::test]
async fn two_exporters_do_not_write_over_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    let rotation = Rotation { size: 1 << 20, backups: 0, compress: false };
    let first = LogFile::open(&path, rotation).await.unwrap();
    let link = dir.path().join("link.log");
    std::fs::hard_link(&path, &link).unwrap();
    let error = LogFile::open(&link, rotation).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("another exporter"), "{error}");
    drop(first);
    LogFile::open(&link, rotation).await.unwrap();
}

#[tokio::test]
async fn losses_that_could_not_be_written_are_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    std::fs::create_dir(&path).unwrap();
    let lost = LostEvent { num_events_lost: 17, ..LostEvent::default() };
    let response =
        GetFlowsResponse { response_types: Some(ResponseTypes::LostEvents(lost)), ..GetFlowsResponse::default() };
    let rotation = Rotation { size: 1 << 20, backups: 0, compress: false };
    let mut writer = Writer { file: None, path: path.clone(), rotation, lost: 0 };
    writer.write("n1", vec![response]).await.unwrap_err();
    std::fs::remove_dir(&path).unwrap();
    writer.write("n1", Vec::new()).await.unwrap();
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(line["lost_events"]["num_events_lost"], "17");
}

#[tokio::test]
async fn large_files_are_put_aside_and_the_oldest_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    let others = dir.path().join("events-of-mine.log");
    std::fs::write(&others, "mine").unwrap();
    let mut file = LogFile::open(&path, Rotation { size: 20, backups: 2, compress: false }).await.unwrap();
    for line in ["first\n", "second and longer\n", "third and longer\n", "fourth and longer\n"] {
        file.append(line.as_bytes()).await.unwrap();
    }
    let kept = backups(&path).await.unwrap();
    let texts: Vec<_> = kept.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(texts, ["second and longer\n", "third and longer\n"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "fourth and longer\n");
    assert!(others.exists());
}

#[tokio::test]
async fn files_that_are_put_aside_are_compressed_if_that_is_wanted_and_count_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    let mut file = LogFile::open(&path, Rotation { size: 20, backups: 2, compress: true }).await.unwrap();
    for line in ["first and longer\n", "second and longer\n", "third and longer\n", "fourth and longer\n"] {
        file.append(line.as_bytes()).await.unwrap();
        let done = timeout(DEADLINE, async {
            while backups(&path).await.unwrap().iter().any(|path| path.extension().unwrap() != "gz") {
                tokio::task::yield_now().await;
            }
        });
        done.await.expect("a file is not compressed");
    }
    let read = |path: &PathBuf| {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut text = String::new();
        MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    };
    let kept = backups(&path).await.unwrap();
    assert_eq!(kept.iter().map(read).collect::<Vec<_>>(), ["second and longer\n", "third and longer\n"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "something is left over");
}

#[tokio::test]
async fn a_line_that_was_being_written_at_the_end_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    for (found, kept) in [("one\ntw", "one\n"), ("tor", ""), ("one\n", "one\n"), ("", "")] {
        std::fs::write(&path, found).unwrap();
        let mut file = LogFile::open(&path, Rotation { size: 100, backups: 0, compress: false }).await.unwrap();
        file.append(b"next\n").await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{kept}next\n"), "{found:?}");
    }
}
