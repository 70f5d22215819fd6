// SPDX-License-Identifier: Apache-2.0
//! What a cluster says of itself: the health of its nodes, and Hubble from the agents to the relay, metrics and files. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod certificates;
mod drops;
mod guide;
mod health;
mod hubble;
mod sockets;
mod suggest;
mod ui;

use std::process::ExitCode;
use std::time::Duration;

use lab::suite::Suite;

const SUITE: Suite = Suite {
    name: "observability",
    command: env!("CARGO_BIN_EXE_cilium-lab"),
    options: &[],
    values: &hubble::VALUES,
    manifest: Some("examples/connectivity/pods.yaml"),
    cases: &[
        ("a_forwarded_port_of_the_relay_shows_the_flows_of_both_nodes", hubble::whole_cluster),
        ("the_command_forwards_a_port_by_itself", hubble::own_port),
        ("the_relay_follows_while_an_agent_restarts", hubble::followed),
        ("flows_from_before_an_agent_was_killed_are_answered_by_the_next", hubble::remembered),
        ("metrics_of_the_agent_and_of_flows_are_scraped_on_every_node", hubble::metrics),
        ("an_exported_file_is_read_back_with_filters", hubble::exported),
        ("what_a_guide_types_after_an_installation_works", guide::typed_on),
        ("flows_of_a_pod_are_observed_by_its_name_and_its_namespace", guide::observed),
        ("a_pod_that_connects_to_a_service_is_seen_before_and_after_its_translation", sockets::translated),
        ("translations_are_not_told_of_where_that_is_off", sockets::untold),
        ("the_ui_shows_in_a_browser_who_is_denied_why_and_what_would_help", ui::denied),
        ("a_pod_whose_packets_are_dropped_is_told_by_an_event", drops::told),
        ("what_a_suggested_policy_allows_is_what_was_seen", suggest::applied),
        ("certificates_that_a_job_makes_take_the_place_of_the_charts_without_a_restart", certificates::by_a_job),
        ("a_node_whose_agent_is_down_is_named_and_the_others_answer", hubble::agent_down),
        ("health_endpoints_are_published_and_answer_pods_and_nodes_over_both_families", health::published),
        ("all_nodes_are_probed_and_reached", health::all_reached),
        ("an_endpoint_that_a_policy_cuts_off_is_told_of_until_the_policy_goes", health::cut_by_policy),
        ("a_node_that_is_cut_off_is_told_of_until_it_is_back", health::node_cut_off),
        ("the_next_agent_has_the_same_health_addresses", health::agent_killed),
        ("its_addresses_are_not_a_pods_and_the_runtimes_gc_lets_it_be", health::among_endpoints),
    ],
};

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    SUITE.main()
}
