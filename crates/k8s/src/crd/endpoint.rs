// SPDX-License-Identifier: Apache-2.0
//! Schema of CiliumEndpoint.

use super::schema::{Schema, boolean, int64, integer, list, map, object, one_of, string};

pub(super) fn schema() -> Schema {
    object([("status", status())])
}

fn status() -> Schema {
    object([
        ("controllers", list(controller())),
        ("encryption", object([("key", integer())])),
        (
            "external-identifiers",
            object([
                ("cni-attachment-id", string()),
                ("container-id", string()),
                ("container-name", string()),
                ("docker-endpoint-id", string()),
                ("docker-network-id", string()),
                ("k8s-namespace", string()),
                ("k8s-pod-name", string()),
                ("pod-name", string()),
            ]),
        ),
        (
            "health",
            object([("bpf", string()), ("connected", boolean()), ("overallHealth", string()), ("policy", string())]),
        ),
        ("id", int64()),
        ("identity", object([("id", int64()), ("labels", list(string()))])),
        (
            "log",
            list(object([("code", string()), ("message", string()), ("state", string()), ("timestamp", string())])),
        ),
        ("named-ports", list(object([("name", string()), ("port", integer()), ("protocol", string())]))),
        ("networking", networking()),
        ("policy", object([("egress", direction()), ("ingress", direction())])),
        ("service-account", string()),
        ("state", state()),
    ])
}

fn controller() -> Schema {
    let configuration = object([("error-retry", boolean()), ("error-retry-base", int64()), ("interval", int64())]);
    let status = object([
        ("consecutive-failure-count", int64()),
        ("failure-count", int64()),
        ("last-failure-msg", string()),
        ("last-failure-timestamp", string()),
        ("last-success-timestamp", string()),
        ("success-count", int64()),
    ]);
    object([("configuration", configuration), ("name", string()), ("status", status), ("uuid", string())])
}

fn networking() -> Schema {
    let addressing = list(object([("ipv4", string()), ("ipv6", string())]));
    object([("addressing", addressing), ("node", string())]).required(["addressing"])
}

fn direction() -> Schema {
    let peer = || {
        object([
            ("dest-port", integer()),
            ("identity", int64()),
            ("identity-labels", map(string())),
            ("protocol", integer()),
        ])
    };
    object([
        ("adding", list(peer())),
        ("allowed", list(peer())),
        ("denied", list(peer())),
        ("enforcing", boolean()),
        ("removing", list(peer())),
        ("state", string()),
    ])
    .required(["enforcing"])
}

fn state() -> Schema {
    one_of([
        "creating",
        "waiting-for-identity",
        "not-ready",
        "waiting-to-regenerate",
        "regenerating",
        "restoring",
        "ready",
        "disconnecting",
        "disconnected",
        "invalid",
    ])
}
