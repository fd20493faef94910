//! The paths in a Rust file, found in its tokens, so that macros are included.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The module declarations, imports and paths of a file, without test-only code.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// `mod name;`
    pub(crate) children: BTreeSet<String>,
    /// Names that `use` brings into scope.
    pub(crate) uses: Vec<Use>,
    /// Other paths, from their first segment.
    pub(crate) inline: Vec<Vec<String>>,
    /// Names of items.
    pub(crate) items: BTreeSet<String>,
}

/// A leaf of a `use` declaration.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) path: Vec<String>,
    /// The name in scope; `None` for `*`.
    pub(crate) name: Option<String>,
    /// Whether it is visible to other modules: any kind of `pub`.
    pub(crate) exported: bool,
}

const ITEMS: [&str; 9] =
    ["const", "enum", "fn", "macro_rules", "static", "struct", "trait", "type", "union"];

impl Paths {
    pub(crate) fn parse(source: &str) -> Self {
        let tokens: TokenStream = source.parse().expect("the file is Rust");
        let mut paths = Self::default();
        paths.scan(&tokens.into_iter().collect::<Vec<_>>());
        paths
    }

    fn scan(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while at < tokens.len() {
            at += match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => self.attribute(&tokens[at..]),
                TokenTree::Group(group) => {
                    self.group(group);
                    1
                }
                TokenTree::Ident(word) => self.word(&word.to_string(), tokens, at),
                _ => 1,
            };
        }
    }

    fn group(&mut self, group: &Group) {
        self.scan(&group.stream().into_iter().collect::<Vec<_>>());
    }

    /// Skips an attribute, and with `#[cfg(test)]` also its item.
    fn attribute(&self, tokens: &[TokenTree]) -> usize {
        let Some(TokenTree::Group(group)) = tokens.get(1) else { return 1 };
        let text = group.stream().to_string();
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        if words[0] != "cfg" || !words.contains(&"test") || words.contains(&"not") {
            return 2;
        }
        let ends = |token: &TokenTree| match token {
            TokenTree::Punct(punct) => punct.as_char() == ';',
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            _ => false,
        };
        tokens.iter().position(ends).map_or(tokens.len(), |end| end + 1)
    }

    fn word(&mut self, word: &str, tokens: &[TokenTree], at: usize) -> usize {
        let next = match tokens.get(at + 1) {
            Some(TokenTree::Ident(next)) => Some(next.to_string()),
            _ => None,
        };
        match (word, next) {
            // `impl Trait + use<'a>` imports nothing.
            ("use", _) if !tokens.get(at + 1).is_some_and(|token| is_punct(token, '<')) => {
                let end = tokens[at..].iter().position(|token| is_punct(token, ';')).unwrap();
                let exported = is_exported(&tokens[..at]);
                self.use_tree(&[], &tokens[at + 1..at + end], exported);
                end + 1
            }
            ("mod", Some(name)) => {
                if tokens.get(at + 2).is_some_and(|token| is_punct(token, ';')) {
                    self.children.insert(name);
                }
                2
            }
            (word, Some(name)) if ITEMS.contains(&word) => {
                self.items.insert(name);
                2
            }
            _ => self.inline_path(tokens, at),
        }
    }

    fn inline_path(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let mut path = Vec::new();
        let mut end = at;
        while let Some(TokenTree::Ident(segment)) = tokens.get(end) {
            path.push(segment.to_string());
            end += 1;
            if !is_separator(tokens, end) {
                break;
            }
            end += 2;
        }
        // A single word is a local name, and a path after `::` belongs to another crate.
        let is_global = at >= 2 && is_separator(tokens, at - 2);
        if path.len() > 1 && !is_global {
            self.inline.push(path);
        }
        end.max(at + 1) - at
    }

    fn use_tree(&mut self, prefix: &[String], tokens: &[TokenTree], exported: bool) {
        for tree in tokens.split(|token| is_punct(token, ',')).filter(|tree| !tree.is_empty()) {
            let mut path = prefix.to_vec();
            let mut name = None;
            let mut at = 0;
            while let Some(token) = tree.get(at) {
                match token {
                    TokenTree::Ident(word) if word == "as" => {
                        name = Some(tree[at + 1].to_string());
                        break;
                    }
                    TokenTree::Ident(word) => path.push(word.to_string()),
                    TokenTree::Punct(punct) if punct.as_char() == '*' => {
                        self.uses.push(Use { path: path.clone(), name: None, exported });
                        path.clear();
                    }
                    TokenTree::Group(group) => {
                        let inner: Vec<_> = group.stream().into_iter().collect();
                        self.use_tree(&path, &inner, exported);
                        path.clear();
                    }
                    _ => {}
                }
                at += 1;
            }
            // `use module::{self}` brings the module itself into scope.
            if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
                path.pop();
            }
            if let Some(last) = path.last().cloned() {
                self.uses.push(Use { path, name: Some(name.unwrap_or(last)), exported });
            }
        }
    }
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// Whether there is a `::` before another name.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at| tokens.get(at).is_some_and(|token| is_punct(token, ':'));
    colon(at) && colon(at + 1) && matches!(tokens.get(at + 2), Some(TokenTree::Ident(_)))
}

/// Whether the tokens end with `pub` or `pub(...)`.
fn is_exported(before: &[TokenTree]) -> bool {
    let is_pub = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word == "pub");
    match before {
        [.., token] if is_pub(token) => true,
        [.., token, TokenTree::Group(_)] => is_pub(token),
        _ => false,
    }
}

#[test]
fn paths_are_found_wherever_they_are() {
    let paths = Paths::parse(
        "mod child; #[cfg(test)] mod tests; pub(crate) use child::{A, inner::{self, B as C}};
         use crate::other::*; #[cfg(test)] use crate::hidden::X;
         struct Item { field: super::Sibling }
         fn f() { let x = crate::deep::g::<u8>(1); my_macro!(super::in_macro::Y); x.len() }
         fn g() -> impl Sized + use<> {}
         #[cfg(test)] fn t() { crate::hidden::f() }",
    );
    assert_eq!(paths.children, BTreeSet::from(["child".to_owned()]));
    let uses: Vec<_> = paths
        .uses
        .iter()
        .map(|leaf| (leaf.path.join("::"), leaf.name.as_deref(), leaf.exported))
        .collect();
    assert_eq!(
        uses,
        [
            ("child::A".to_owned(), Some("A"), true),
            ("child::inner".to_owned(), Some("inner"), true),
            ("child::inner::B".to_owned(), Some("C"), true),
            ("crate::other".to_owned(), None, false),
        ]
    );
    let inline: Vec<_> = paths.inline.iter().map(|path| path.join("::")).collect();
    assert_eq!(inline, ["super::Sibling", "crate::deep::g", "super::in_macro::Y"]);
    assert!(paths.items.contains("Item") && !paths.items.contains("t"));
}
