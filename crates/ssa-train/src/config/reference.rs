//! The reference page of all keys, generated from the declarations.

use super::TrainConfig;

/// Width of the paragraphs of the page, in columns.
const WIDTH: usize = 100;

/// `docs/reference/config.md`: one table per section with key, type, default and meaning.
pub fn reference_page() -> String {
    let mut page = "# Training configuration\n".to_owned();
    push_paragraph(
        &mut page,
        "A configuration is a TOML file. Every key has a default, so a file names only what it \
         changes; an unknown key is an error. On the command line, `--set section.key=value` \
         overrides one key.",
    );
    push_paragraph(
        &mut page,
        "This page is generated from the declarations in `crates/ssa-train/src/config/`; a test \
         keeps the two equal.",
    );
    for key in TrainConfig::keys() {
        match &key.expected {
            None => {
                page.push_str(&format!("\n## `[{}]`\n", key.name));
                push_paragraph(&mut page, &key.doc);
                page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
            }
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

/// Appends a blank line and a paragraph, wrapped at [`WIDTH`] columns.
fn push_paragraph(page: &mut String, text: &str) {
    let mut columns = WIDTH;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if columns + 1 + length > WIDTH {
            page.push('\n');
            columns = length;
        } else {
            page.push(' ');
            columns += 1 + length;
        }
        page.push_str(word);
    }
    page.push('\n');
}
