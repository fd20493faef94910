//! The reference page of all keys, made from the declarations.

use super::TrainConfig;

/// `docs/reference/config.md`: one table per section with key, type, default and meaning.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Training configuration\n\n\
         A configuration is a TOML file. Every key has a default, so a file names only what it changes; an unknown \
         key is an error. On the command line `--set section.key=value` overrides one key.\n\n\
         This page is generated from the declarations in `crates/ssa-train/src/config/`; a test keeps the two equal.\n",
    );
    for key in TrainConfig::keys() {
        match &key.expected {
            None => page.push_str(&format!(
                "\n## `[{}]`\n\n{}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n",
                key.name, key.doc
            )),
            Some(expected) => {
                let default =
                    key.default.map_or_else(|| "absent".to_owned(), |value| format!("`{value}`"));
                let field = key.name.rsplit('.').next().unwrap_or_default();
                page.push_str(&format!("| `{field}` | {expected} | {default} | {} |\n", key.doc));
            }
        }
    }
    page
}
