//! What the sources of the ops say about their arguments and their documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::table::OPS;

/// A public function with its documentation.
struct Function {
    name: String,
    docs: String,
    /// Name and type of every parameter.
    parameters: Vec<(String, String)>,
}

/// All sources under a folder that are part of the public interface of ops.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let private = ["tests.rs", "reference.rs", "cuda", "cpu", "contract_tests"];
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if private.contains(&name.as_str()) {
            continue;
        } else if path.is_dir() {
            paths.extend(self::sources(&path));
        } else if name.ends_with(".rs") {
            paths.push(path);
        }
    }
    paths
}

fn all_sources() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    sources(&folder).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// The public functions of a source outside of `impl` blocks.
fn functions(source: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    let mut docs = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push_str(doc);
            docs.push('\n');
        } else if let Some(signature) = line.strip_prefix("pub fn ") {
            let mut signature = signature.to_owned();
            while !signature.contains(") ->") && !signature.ends_with('{') {
                signature.push_str(lines.next().unwrap().trim());
            }
            functions.push(function(&signature, std::mem::take(&mut docs)));
        } else {
            docs.clear();
        }
    }
    functions
}

fn function(signature: &str, docs: String) -> Function {
    let (name, rest) = signature.split_once('(').unwrap();
    let parameters = rest.rsplit_once(") ->").map_or(rest, |(parameters, _)| parameters);
    let parameters = parameters.split(", ").flat_map(|text| text.split(','));
    let parameter = |text: &str| {
        let (name, kind) = text.split_once(": ")?;
        Some((name.trim_start_matches("mut ").to_owned(), kind.to_owned()))
    };
    Function {
        name: name.split('<').next().unwrap().to_owned(),
        docs,
        parameters: parameters.filter_map(parameter).collect(),
    }
}

/// The fields that hold tensors, of every public struct of a source.
fn structs(source: &str) -> BTreeMap<String, Vec<String>> {
    let mut structs = BTreeMap::new();
    let mut open: Option<String> = None;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            open = Some(rest.split(['<', ' ', '(', ';']).next().unwrap().to_owned());
        } else if line == "}" {
            open = None;
        } else if let (Some(name), Some(field)) = (&open, line.strip_prefix("    pub ")) {
            let (field, kind) = field.split_once(": ").unwrap();
            if kind.contains("Tensor") {
                structs.entry(name.clone()).or_insert_with(Vec::new).push(field.to_owned());
            }
        }
    }
    structs
}

/// The tensors among the arguments of every public function that has some, by their last names.
fn tensors_of_functions() -> BTreeMap<String, BTreeSet<String>> {
    let sources = all_sources();
    let structs: BTreeMap<_, _> = sources.iter().flat_map(|source| structs(source)).collect();
    let mut tensors = BTreeMap::new();
    for function in sources.iter().flat_map(|source| functions(source)) {
        let mut names = BTreeSet::new();
        for (name, kind) in &function.parameters {
            let words = kind.split(|c: char| !c.is_alphanumeric()).collect::<Vec<_>>();
            if words.contains(&"Tensor") {
                names.insert(name.clone());
            }
            let fields = words.iter().filter_map(|word| structs.get(*word)).flatten();
            names.extend(fields.cloned());
        }
        if !names.is_empty() {
            tensors.insert(function.name, names);
        }
    }
    tensors
}

#[test]
fn the_table_holds_every_tensor_of_every_op() {
    let listed: BTreeMap<String, BTreeSet<String>> = OPS
        .iter()
        // A method of the tensor, not a function of an op.
        .filter(|op| op.name != "add_assign")
        .map(|op| {
            let last = |name: &str| name.rsplit('.').next().unwrap().to_owned();
            (op.name.to_owned(), op.tensors().map(|entry| last(entry.name)).collect())
        })
        .collect();
    let declared = tensors_of_functions();
    assert!(declared.len() > 40, "the sources were not read: {declared:?}");
    assert_eq!(listed, declared);
}

#[test]
fn the_documentation_states_the_whole_contract() {
    let tensors = tensors_of_functions();
    for function in all_sources().iter().flat_map(|source| functions(source)) {
        let Function { name, docs, .. } = &function;
        let Some(tensors) = tensors.get(name) else { continue };
        for section in ["Shapes", "Dtypes", "Edge cases", "Errors", "Determinism", "Source"] {
            assert!(docs.contains(&format!("# {section}\n")), "{name} lacks `# {section}`");
        }
        let shapes = docs.split("# ").find(|section| section.starts_with("Shapes\n")).unwrap();
        for tensor in tensors {
            let names = [format!("`{tensor}`"), format!(".{tensor}`")];
            let stated = names.iter().any(|name| shapes.contains(name)) || shapes.contains("[`");
            assert!(stated, "{name} does not state the shape of `{tensor}`");
        }
    }
}

#[test]
fn signatures_are_read() {
    let source = [
        "/// Adds.",
        "pub fn add<'a>(",
        "    mut x: Tensor,",
        "    y: Option<&mut Tensor>,",
        "    n: usize,",
        ") -> Result<()> {",
        "}",
        "pub struct Pair<'a> {",
        "    pub a: &'a Tensor,",
        "    pub n: usize,",
        "}",
    ];
    let source = &source.join("\n");
    let function = &functions(source)[0];
    assert_eq!((function.name.as_str(), function.docs.as_str()), ("add", " Adds.\n"));
    let names: Vec<&str> = function.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x", "y", "n"]);
    assert_eq!(structs(source)["Pair"], ["a"]);
}
