// SPDX-License-Identifier: Apache-2.0
//! CustomResourceDefinitions, as the operator registers them.

use crate::page::{Page, code, codes};
use k8s::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
};

const TEXT: &str = "\
The custom resources that the operator registers (unless `skip-crd-creation`). Their schemas are in `deploy/crds`, written from the same definitions.";

pub(crate) fn page() -> Page {
    let mut page = Page::new("Custom resources", TEXT);
    let all = k8s::crd::all().unwrap();
    let head = ["kind", "group", "versions", "scope", "short names", "categories", "subresources"];
    page.table(head, all.iter().map(row));
    page.heading(2, "Columns of `kubectl get`");
    let columns = all.iter().flat_map(|definition| {
        let versions = definition.spec.versions.iter().filter(|version| version.storage);
        let columns = versions.flat_map(|version| version.additional_printer_columns.iter().flatten());
        columns.map(|column| cells(&definition.spec.names.kind, column))
    });
    page.table(["kind", "column", "type", "path", "shown with"], columns);
    page
}

fn row(definition: &CustomResourceDefinition) -> [String; 7] {
    let spec = &definition.spec;
    let status = |version: &CustomResourceDefinitionVersion| version.subresources.as_ref()?.status.as_ref().map(|_| ());
    [
        code(&spec.names.kind),
        code(&spec.group),
        spec.versions.iter().map(version).collect::<Vec<_>>().join("; "),
        spec.scope.clone(),
        codes(spec.names.short_names.iter().flatten()),
        codes(spec.names.categories.iter().flatten()),
        code(if spec.versions.iter().any(|version| status(version).is_some()) { "status" } else { "" }),
    ]
}

fn version(version: &CustomResourceDefinitionVersion) -> String {
    let facts = [
        (version.served, "served"),
        (!version.served, "not served"),
        (version.storage, "stored"),
        (version.deprecated == Some(true), "deprecated"),
    ];
    let facts: Vec<&str> = facts.into_iter().filter(|(is, _)| *is).map(|(_, fact)| fact).collect();
    format!("{} ({})", code(&version.name), facts.join(", "))
}

fn cells(kind: &str, column: &CustomResourceColumnDefinition) -> [String; 5] {
    let shown = if column.priority.unwrap_or_default() > 0 { "`-o wide`" } else { "" };
    [code(kind), column.name.clone(), column.type_.clone(), code(&column.json_path), shown.to_owned()]
}
