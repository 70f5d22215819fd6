// SPDX-License-Identifier: Apache-2.0
use super::{Families, Family, Surface};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use model::{Identity, IdentityId, Labels};
use tower::ServiceExt;

#[test]
fn a_table_is_listed_and_dumped_by_its_name() {
    let (mut writer, reader) = statedb::table("identities");
    let surface = Surface::new().table(&reader);
    writer.insert(Identity { id: IdentityId(300), labels: Labels::default() });
    writer.commit();
    assert_eq!(surface.tables()[0].rows, 1);
    assert!(surface.dump("identities").unwrap()[0].contains("300"));
    assert!(surface.dump("no-such-table").is_none());
}

#[tokio::test]
async fn what_is_added_is_shown_beside_the_rest() {
    let gauge = |name| move || vec![Family::gauge(name, "Help").with(&[("a", "b")], 7)];
    let feature = |path, name| {
        Surface::new()
            .routes(Router::new().route(path, get(|| async {})))
            .metrics(|registry| registry.register_collector(Families::read(gauge(name))))
    };
    let mut surface = feature("/one", "one").status(|status| status.datapath_mode = "veth".into());
    surface.add(feature("/two", "two").status(|status| status.attach_mode = "tcx".into()));
    for path in ["/one", "/two"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(surface.router().oneshot(request).await.unwrap().status(), StatusCode::OK);
    }
    let page = surface.metrics_page();
    assert!(page.contains("cilium_one{a=\"b\"} 7\n") && page.contains("cilium_two{a=\"b\"} 7\n"), "{page}");
    assert_eq!(page.matches("# EOF").count(), 1);
    let status = surface.status_now();
    assert_eq!((&*status.datapath_mode, &*status.attach_mode), ("veth", "tcx"));
}
