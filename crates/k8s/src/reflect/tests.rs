// SPDX-License-Identifier: Apache-2.0
use super::guard::Guarded;
use super::mirror::Mirror;
use super::{Ingested, follow};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::core::Status;
use kube::runtime::watcher::{self, Event};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

mod servers;

/// A row made of a ConfigMap: key `as` (or else its name), and value.
#[derive(Clone, Debug, PartialEq)]
struct Value {
    key: String,
    value: String,
}

impl statedb::Row for Value {
    type Key = String;
    fn key(&self) -> String {
        self.key.clone()
    }
}

fn object(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut object = ConfigMap { data: Some(data), ..ConfigMap::default() };
    object.metadata.name = Some(name.to_owned());
    object
}

fn ingest(object: &ConfigMap) -> Ingested<Value> {
    let data = object.data.clone().unwrap_or_default();
    let key = data.get("as").cloned().unwrap_or_else(|| object.name_any());
    match data.get("value").map(String::as_str) {
        Some("bad") => Ingested::Bad("it says so".into()),
        Some("part") => Ingested::Part(Value { key, value: "rest".to_owned() }, "it says so".into()),
        Some(value) => Ingested::Row(Value { key, value: value.to_owned() }),
        None => Ingested::Nothing,
    }
}

type Item = watcher::Result<Event<ConfigMap>>;

/// What the table holds after the events, as `key=value`, and whether it is initialised.
async fn after(events: Vec<Item>) -> (Vec<String>, bool) {
    let (writer, reader) = statedb::table::<Value>("values");
    let mirror: (_, fn(&_) -> _) = (Mirror::new(writer, "ConfigMap".into()), ingest);
    follow(futures::stream::iter(events), vec![Box::new(mirror)]).await;
    let snapshot = reader.snapshot();
    let rows = snapshot.iter().map(|row: &Arc<Value>| format!("{}={}", row.key, row.value)).collect();
    (rows, snapshot.initialized())
}

fn list(objects: Vec<ConfigMap>) -> Vec<Item> {
    let mut events = vec![Ok(Event::Init)];
    events.extend(objects.into_iter().map(|o| Ok(Event::InitApply(o))));
    events.push(Ok(Event::InitDone));
    events
}

fn gone() -> Item {
    Err(watcher::Error::WatchError(Box::new(Status { code: 410, ..Status::default() })))
}

#[tokio::test]
async fn a_list_fills_the_table_and_marks_it_initialised() {
    let (rows, initialized) = after(list(vec![object("a", &[("value", "1")]), object("b", &[])])).await;
    assert_eq!((rows, initialized), (vec!["a=1".to_owned()], true));
}

#[tokio::test]
async fn a_list_that_breaks_off_changes_nothing_and_initialises_nothing() {
    let broken = |value| [Ok(Event::Init), Ok(Event::InitApply(object("a", &[("value", value)]))), gone()];
    let (rows, initialized) = after(broken("1").into()).await;
    assert_eq!((rows.len(), initialized), (0, false));

    let mut events = list(vec![object("a", &[("value", "1")]), object("b", &[("value", "2")])]);
    events.push(gone());
    events.extend(broken("9"));
    assert_eq!(after(events).await.0, ["a=1", "b=2"]);
}

#[tokio::test]
async fn a_second_list_removes_what_is_gone() {
    let mut events = list(vec![object("a", &[("value", "1")]), object("b", &[("value", "2")])]);
    events.push(gone());
    events.extend(list(vec![object("b", &[("value", "3")])]));
    assert_eq!(after(events).await.0, ["b=3"]);
}

#[tokio::test]
async fn changes_and_deletions_follow_the_watch() {
    let mut events = list(vec![object("a", &[("value", "1")]), object("b", &[("value", "2")])]);
    events.push(Ok(Event::Apply(object("c", &[("value", "3")]))));
    events.push(Ok(Event::Apply(object("b", &[]))));
    // A deleted object may look different from what gave the row.
    events.push(Ok(Event::Delete(object("a", &[("as", "x")]))));
    assert_eq!(after(events).await.0, ["c=3"]);
}

#[tokio::test]
async fn an_object_that_moves_to_another_key_leaves_no_row_behind() {
    let mut events = list(vec![object("a", &[("value", "1")])]);
    events.push(Ok(Event::Apply(object("a", &[("value", "1"), ("as", "z")]))));
    assert_eq!(after(events).await.0, ["z=1"]);
}

#[tokio::test]
async fn a_bad_object_keeps_the_row_of_its_last_good_version_even_over_a_new_list() {
    let mut events = list(vec![object("a", &[("value", "1")])]);
    events.push(Ok(Event::Apply(object("a", &[("value", "bad")]))));
    events.push(gone());
    events.extend(list(vec![object("a", &[("value", "bad")]), object("b", &[("value", "bad")])]));
    assert_eq!(after(events).await.0, ["a=1"]);
}

#[tokio::test]
async fn of_an_object_that_is_bad_in_part_the_rest_has_a_row_whether_an_earlier_version_is_known_or_not() {
    let bad = || object("a", &[("value", "part")]);
    let mut events = list(vec![object("a", &[("value", "1")])]);
    events.push(Ok(Event::Apply(bad())));
    assert_eq!(after(events).await.0, ["a=rest"]);
    assert_eq!(after(list(vec![bad()])).await.0, ["a=rest"]);
}

#[test]
fn an_object_that_cannot_be_decoded_is_told_apart_by_name() {
    let text = r#"[{"metadata":{"name":"a"},"data":{"value":"1"}},{"metadata":{"name":"b"},"data":"text"}]"#;
    let objects: Vec<Guarded<ConfigMap>> = serde_json::from_str(text).unwrap();
    assert_eq!(objects.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["a", "b"]);
    objects[0].object.as_ref().unwrap();
    objects[1].object.as_ref().unwrap_err();
}

proptest! {
    /// Whatever the API server did, the table equals its objects once the watch has caught up.
    #[test]
    fn the_table_equals_the_api_server(
        steps in prop::collection::vec((0..6_usize, 0..5_usize, 0..3_usize), 0..40),
    ) {
        let mut server: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut events = list(Vec::new());
        for (what, name, value) in steps {
            let name = format!("o{name}");
            match what {
                0 => {
                    if server.remove(&name).is_some() {
                        events.push(Ok(Event::Delete(object(&name, &[]))));
                    }
                }
                1 => {
                    events.push(gone());
                    let all = server.iter().map(|(name, value)| match value {
                        Some(value) => object(name, &[("value", value)]),
                        None => object(name, &[]),
                    });
                    events.extend(list(all.collect()));
                }
                2 => {
                    events.push(Ok(Event::Apply(object(&name, &[]))));
                    server.insert(name, None);
                }
                _ => {
                    let value = value.to_string();
                    events.push(Ok(Event::Apply(object(&name, &[("value", &value)]))));
                    server.insert(name, Some(value));
                }
            }
        }
        let expected: Vec<String> =
            server.iter().filter_map(|(k, v)| v.as_ref().map(|v| format!("{k}={v}"))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert_eq!(runtime.block_on(after(events)), (expected, true));
    }
}
