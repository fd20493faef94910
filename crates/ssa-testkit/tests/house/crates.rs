//! Imports between crates have no cycle, including dev-dependencies.

use std::collections::BTreeMap;
use std::fs;

use crate::files;
use crate::modules::cycles;

#[test]
fn crates_import_each_other_without_cycles() {
    let mut names = Vec::new();
    let mut imports = Vec::new();
    for entry in fs::read_dir(files::root().join("crates")).unwrap() {
        let manifest = fs::read_to_string(entry.unwrap().path().join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        names.push(manifest["package"]["name"].as_str().unwrap().to_owned());
        let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = tables.iter().filter_map(|table| manifest.get(*table)?.as_table());
        imports.push(tables.flat_map(toml::Table::keys).cloned().collect::<Vec<String>>());
    }
    let index: BTreeMap<&String, usize> = names.iter().zip(0..).collect();
    let edges: Vec<Vec<usize>> = imports
        .iter()
        .map(|imports| imports.iter().filter_map(|name| index.get(name).copied()).collect())
        .collect();
    assert!(edges.iter().flatten().count() > 20, "dependencies are found");
    let cycles = cycles(&edges);
    let named = |cycle: &Vec<usize>| {
        let names: Vec<_> = cycle.iter().map(|&index| names[index].as_str()).collect();
        names.join(" -> ")
    };
    let cycles: Vec<String> = cycles.iter().map(named).collect();
    assert!(cycles.is_empty(), "crates that import each other: {}", cycles.join("; "));
}
