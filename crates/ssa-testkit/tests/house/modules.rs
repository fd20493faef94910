//! Imports between the modules of a crate have no cycle.
//!
//! A module is a file. A name imported through a facade (`lib.rs`, or the `mod.rs` of a folder)
//! counts as an import from the module that defines it. Imports of a file from the `mod.rs` of its
//! own folder do not count: a folder's `mod.rs` and its files belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::files;
use crate::paths::Paths;

/// The modules of a crate; the first is its root.
struct Crate {
    modules: Vec<Module>,
}

struct Module {
    /// Its file, relative to the root of the repository.
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    paths: Paths,
}

/// The target of a path.
#[derive(Clone, Copy)]
enum Target {
    Module(usize),
    /// An item of a module.
    Item(usize),
}

impl Target {
    fn module(self) -> usize {
        match self {
            Self::Module(module) | Self::Item(module) => module,
        }
    }
}

/// Limit on chains of re-exports, which may be circular.
const DEPTH: usize = 16;

impl Crate {
    /// Reads a crate from its root file; `read` returns the text of a file.
    fn parse(root: &str, read: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut tree = Self { modules: Vec::new() };
        tree.add(root, None, read);
        tree
    }

    fn add(&mut self, file: &str, parent: Option<usize>, read: &dyn Fn(&str) -> Option<String>) {
        let index = self.modules.len();
        let paths = Paths::parse(&read(file).unwrap_or_else(|| panic!("no file {file}")));
        let names = paths.children.clone();
        let children = BTreeMap::new();
        self.modules.push(Module { file: file.to_owned(), parent, children, paths });
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        for name in names {
            let candidates = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")];
            let file = candidates.iter().find(|file| read(file).is_some());
            let file = file.unwrap_or_else(|| panic!("{folder}: no file of module {name}"));
            let child = self.modules.len();
            self.modules[index].children.insert(name, child);
            self.add(file, Some(index), read);
        }
    }

    /// Follows a path from a module; `None` if it leaves the crate or is a local name.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Option<Target> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => 0,
            "self" => from,
            "super" => self.modules[from].parent?,
            name => match self.lookup(from, name, depth)? {
                Target::Module(module) => module,
                item => return Some(item),
            },
        };
        while let Some((name, next)) = rest.split_first() {
            rest = next;
            at = match name.as_str() {
                "super" => self.modules[at].parent?,
                "self" => at,
                name => match self.lookup(at, name, depth) {
                    Some(Target::Module(module)) => module,
                    Some(item) => return Some(item),
                    None => return Some(Target::Item(at)),
                },
            };
        }
        Some(Target::Module(at))
    }

    /// Resolves a name inside a module, if it is a child, an item, or imported from this crate.
    fn lookup(&self, module: usize, name: &str, depth: usize) -> Option<Target> {
        let Module { children, paths, .. } = &self.modules[module];
        if let Some(&child) = children.get(name) {
            return Some(Target::Module(child));
        }
        if paths.items.contains(name) {
            return Some(Target::Item(module));
        }
        if depth == DEPTH {
            return None;
        }
        if let Some(found) = paths.uses.iter().find(|found| found.name.as_deref() == Some(name)) {
            // `use name::name` would resolve to itself.
            let itself = found.path.len() == 1;
            return if itself { None } else { self.resolve(module, &found.path, depth + 1) };
        }
        let globs = paths.uses.iter().filter(|found| found.name.is_none());
        globs
            .filter_map(|glob| self.resolve(module, &glob.path, depth + 1))
            .filter(|target| target.module() != module)
            .find_map(|target| self.lookup(target.module(), name, depth + 1))
    }

    fn is_inside(&self, module: usize, folder: usize) -> bool {
        let mut ancestor = self.modules[module].parent;
        while let Some(index) = ancestor {
            if index == folder {
                return true;
            }
            ancestor = self.modules[index].parent;
        }
        false
    }

    /// For each module, the modules it imports from, with the first such path.
    fn imports(&self) -> Vec<BTreeMap<usize, String>> {
        let of_module = |(from, module): (usize, &Module)| {
            let exported = module.paths.uses.iter().map(|found| (&found.path, found.exported));
            let inline = module.paths.inline.iter().map(|path| (path, false));
            let mut imports = BTreeMap::new();
            for (path, exported) in exported.chain(inline) {
                let Some(target) = self.resolve(from, path, 0) else { continue };
                let target = target.module();
                let is_facade = exported && self.is_inside(target, from);
                if target != from && !is_facade && !self.is_inside(from, target) {
                    imports.entry(target).or_insert_with(|| path.join("::"));
                }
            }
            imports
        };
        self.modules.iter().enumerate().map(of_module).collect()
    }

    /// The cycles, with one import per line.
    fn cycles(&self) -> Vec<String> {
        let imports = self.imports();
        let file = |index: usize| self.modules[index].file.as_str();
        let edges: Vec<Vec<usize>> =
            imports.iter().map(|targets| targets.keys().copied().collect()).collect();
        let describe = |cycle: Vec<usize>| {
            let next = cycle.iter().cycle().skip(1);
            let steps = cycle.iter().zip(next).map(|(&from, &to)| {
                format!("  {} imports {} ({})\n", file(from), file(to), imports[from][&to])
            });
            steps.collect()
        };
        cycles(&edges).into_iter().map(describe).collect()
    }
}

/// A shortest cycle through the lowest node of every strongly connected component.
pub(crate) fn cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut found = Vec::new();
    let mut done = BTreeSet::new();
    for start in 0..edges.len() {
        if done.contains(&start) {
            continue;
        }
        // Breadth-first search with predecessors.
        let mut before = BTreeMap::new();
        let mut queue = vec![start];
        let mut next = 0;
        while next < queue.len() && !before.contains_key(&start) {
            let node = queue[next];
            next += 1;
            for &target in &edges[node] {
                if !before.contains_key(&target) && !done.contains(&target) {
                    before.insert(target, node);
                    queue.push(target);
                }
            }
        }
        if before.contains_key(&start) {
            let mut cycle = vec![start];
            let mut node = before[&start];
            while node != start {
                cycle.push(node);
                node = before[&node];
            }
            cycle.reverse();
            // The start node comes first again.
            cycle.rotate_right(1);
            done.extend(cycle.iter().copied());
            found.push(cycle);
        }
        done.insert(start);
    }
    found
}

#[test]
fn modules_import_each_other_without_cycles() {
    let root = files::root();
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    let mut crates = Vec::new();
    for entry in fs::read_dir(root.join("crates")).unwrap() {
        let source = entry.unwrap().path().join("src");
        let roots = ["lib.rs", "main.rs"].map(|name| source.join(name));
        let file = roots.iter().find(|file| file.exists()).unwrap();
        let file = file.strip_prefix(&root).unwrap().to_str().unwrap();
        crates.push(Crate::parse(file, &read));
    }
    let found: Vec<String> = crates.iter().flat_map(Crate::cycles).collect();
    assert!(found.is_empty(), "modules that import each other:\n{}", found.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cycles of a crate with these files, as lists of files in order.
    fn cycles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let read = |file: &str| {
            let found = files.iter().find(|(name, _)| format!("src/{name}") == file);
            found.map(|(_, text)| (*text).to_owned())
        };
        let importing = |line: &str| line.trim().split(' ').next().unwrap().to_owned();
        let cycles = Crate::parse("src/lib.rs", &read).cycles();
        cycles.iter().map(|cycle| cycle.lines().map(importing).collect()).collect()
    }

    #[test]
    fn siblings_that_import_each_other_are_a_cycle() {
        let found = cycles_of(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { super::a::g() }"),
        ]);
        assert_eq!(found, [["src/a.rs", "src/b.rs"]]);
    }

    #[test]
    fn facades_resolve_to_the_defining_module() {
        let files = |base: &'static str| {
            [
                ("lib.rs", "mod base; mod ops; pub use base::*; pub use ops::Op;"),
                ("base/mod.rs", "mod list; mod launch; pub use launch::launch;"),
                ("base/list.rs", base),
                ("base/launch.rs", "use super::list::all; pub fn launch() { all() }"),
                ("ops/mod.rs", "mod op; pub use op::Op;"),
                ("ops/op.rs", "use crate::launch; pub struct Op; fn run() { launch() }"),
            ]
        };
        let found = cycles_of(&files("pub fn all() { macro_call!(crate::Op) }"));
        assert_eq!(found, [["src/base/launch.rs", "src/base/list.rs", "src/ops/op.rs"]]);
        assert!(cycles_of(&files("pub fn all() {}")).is_empty());
    }

    #[test]
    fn a_folder_and_its_files_belong_together() {
        let found = cycles_of(&[
            ("lib.rs", "mod a; pub struct Error;"),
            ("a/mod.rs", "mod part; pub struct A; fn f() { part::run() }"),
            ("a/part.rs", "use super::A; use crate::Error; pub fn run() {}"),
        ]);
        assert!(found.is_empty());
    }

    #[test]
    fn tests_may_import_anything() {
        let found = cycles_of(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
        ]);
        assert!(found.is_empty());
    }
}
