//! Rewrites Jinja2 syntax that minijinja lacks or interprets differently:
//!
//! * `{% generation %}` and `{% endgeneration %}`, transformers' own statement around model output,
//!   become `{% with %}` and `{% endwith %}`: a scope that does not change the text;
//! * `a % b`, which formats if `a` is a string, becomes the call [`PERCENT`]`(a, b)`;
//! * `{% for x in a %}`, which fails for `none`, becomes `{% for x in (a)|`[`ITERABLE`]` %}`.

use std::ops::Range;

/// The function that replaces the operator.
pub(super) const PERCENT: &str = "__percent";
const CALL: &str = "__percent(";
/// The operators of one tag that are replaced. The work for each is proportional to the tag, and the
/// engine refuses calls that are nested this deep.
const MOST_PERCENTS: usize = 200;
/// The filter that refuses values that Python cannot iterate over.
pub(super) const ITERABLE: &str = "__iterable";
const FILTERED: &str = ")|__iterable";

/// Keywords that end an operand.
const KEYWORDS: [&str; 17] = [
    "if",
    "elif",
    "else",
    "for",
    "in",
    "not",
    "and",
    "or",
    "is",
    "set",
    "do",
    "call",
    "filter",
    "with",
    "recursive",
    "macro",
    "print",
];

/// A token of an expression or statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    start: usize,
    /// Number of open brackets around it; a bracket itself counts as outside.
    depth: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    fn is_operand(&self) -> bool {
        self.text.starts_with(|c: char| {
            c.is_alphanumeric() || matches!(c, '_' | '"' | '\'' | ')' | ']' | '}')
        }) && !KEYWORDS.contains(&self.text)
    }

    /// Whether it ends an operand of `%`, at its own depth.
    fn ends_product(&self) -> bool {
        KEYWORDS.contains(&self.text)
            || matches!(
                self.text,
                "+" | "-" | "~" | "=" | "==" | "!=" | "<" | ">" | "<=" | ">=" | "," | ":"
            )
    }

    fn is_product(&self) -> bool {
        matches!(self.text, "*" | "/" | "//" | "%")
    }
}

/// Rewrites a template for minijinja.
pub(super) fn to_minijinja(source: &str) -> String {
    let mut edits: Vec<(Range<usize>, &str)> = Vec::new();
    let mut at = 0;
    while let Some(start) = source[at..].find('{').map(|offset| at + offset) {
        at = match source.as_bytes().get(start + 1) {
            Some(b'#') => find_after(source, start + 2, "#}"),
            Some(b'%') => {
                let (tokens, end) = tokens(source, start + 2, "%}");
                rename_generation(&tokens, &mut edits);
                check_iterable(&tokens, &mut edits);
                replace_percent(&tokens, &mut edits);
                match tokens.first() {
                    Some(first) if first.text == "raw" => end_of_raw(source, end),
                    _ => end,
                }
            }
            Some(b'{') => {
                let (tokens, end) = tokens(source, start + 2, "}}");
                replace_percent(&tokens, &mut edits);
                end
            }
            _ => start + 1,
        };
    }
    // A stable sort keeps the order of insertions at one position.
    edits.sort_by_key(|(place, _)| place.start);
    let (mut text, mut done) = (String::with_capacity(source.len()), 0);
    for (place, replacement) in edits {
        text += &source[done..place.start];
        text += replacement;
        done = place.end;
    }
    text + &source[done..]
}

fn find_after(source: &str, from: usize, wanted: &str) -> usize {
    source[from..].find(wanted).map_or(source.len(), |at| from + at + wanted.len())
}

fn end_of_raw(source: &str, mut at: usize) -> usize {
    while let Some(start) = source[at..].find("{%").map(|offset| at + offset) {
        at = start + 2;
        let inside = source[at..].trim_start_matches(['-', '+']).trim_start();
        if inside.starts_with("endraw") {
            return find_after(source, at, "%}");
        }
    }
    source.len()
}

/// The tokens up to the end of a tag, and the position of that end.
fn tokens<'a>(source: &'a str, from: usize, end: &str) -> (Vec<Token<'a>>, usize) {
    let mut tokens = Vec::new();
    let (mut at, mut depth) = (from, 0_usize);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        if depth == 0 && rest.starts_with(end) {
            return (tokens, at + end.len());
        }
        let length = match first {
            '\'' | '"' => string_length(rest, first),
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            _ if ["//", "**", "==", "!=", "<=", ">="].iter().any(|two| rest.starts_with(two)) => 2,
            c => c.len_utf8(),
        };
        if matches!(first, ')' | ']' | '}') {
            depth = depth.saturating_sub(1);
        }
        let text = &rest[..length];
        // Signs of whitespace control are not operators.
        let control = matches!(text, "-" | "+")
            && (at == from || (depth == 0 && rest[length..].starts_with(end)));
        if !control {
            tokens.push(Token { text, start: at, depth });
        }
        if matches!(first, '(' | '[' | '{') {
            depth += 1;
        }
        at += length;
    }
    (tokens, source.len())
}

/// The length of a string literal with its quotes.
fn string_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

fn rename_generation(tokens: &[Token<'_>], edits: &mut Vec<(Range<usize>, &str)>) {
    let name = match tokens {
        [first] if first.text == "generation" => "with",
        [first] if first.text == "endgeneration" => "endwith",
        _ => return,
    };
    edits.push((tokens[0].start..tokens[0].end(), name));
}

fn check_iterable(tokens: &[Token<'_>], edits: &mut Vec<(Range<usize>, &str)>) {
    if tokens.first().is_none_or(|first| first.text != "for") {
        return;
    }
    let at = |words: &[&str], from: usize| {
        let word = |token: &Token<'_>| token.depth == 0 && words.contains(&token.text);
        tokens.iter().skip(from).position(word).map(|offset| from + offset)
    };
    let Some(first) = at(&["in"], 1).map(|at| at + 1) else { return };
    let end = at(&["if", "recursive"], first).unwrap_or(tokens.len());
    if let (Some(first), Some(last)) = (tokens.get(first), tokens.get(end - 1))
        && end > 0
        && last.start >= first.start
    {
        edits.push((first.start..first.start, "("));
        edits.push((last.end()..last.end(), FILTERED));
    }
}

fn replace_percent(tokens: &[Token<'_>], edits: &mut Vec<(Range<usize>, &str)>) {
    let percents = || tokens.iter().enumerate().filter(|(_, token)| token.text == "%");
    if percents().count() > MOST_PERCENTS {
        return;
    }
    for (number, token) in percents() {
        let (Some(start), Some(end)) = (left_start(tokens, number), right_end(tokens, number))
        else {
            continue;
        };
        edits.push((start..start, CALL));
        edits.push((token.start..token.end(), ","));
        edits.push((end..end, ")"));
    }
}

/// The start of the left operand: the first factor of its product.
fn left_start(tokens: &[Token<'_>], percent: usize) -> Option<usize> {
    let depth = tokens[percent].depth;
    let mut start = None;
    for number in (0..percent).rev() {
        let token = tokens[number];
        if token.depth < depth {
            break;
        }
        let sign = matches!(token.text, "-" | "+")
            && !number.checked_sub(1).is_some_and(|before| tokens[before].is_operand());
        if token.depth == depth && token.ends_product() && !sign {
            break;
        }
        start = Some(token.start);
    }
    start
}

/// The end of the right operand: after one factor.
fn right_end(tokens: &[Token<'_>], percent: usize) -> Option<usize> {
    let depth = tokens[percent].depth;
    let mut end = None;
    for (number, token) in tokens.iter().enumerate().skip(percent + 1) {
        if token.depth < depth {
            break;
        }
        let sign = matches!(token.text, "-" | "+") && !tokens[number - 1].is_operand();
        if token.depth == depth && (token.ends_product() || token.is_product()) && !sign {
            break;
        }
        end = Some(token.end());
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rewrites_apply_and_nothing_else_changes() {
        for (source, expected) in [
            ("{%- generation -%}x{% endgeneration %}", "{%- with -%}x{% endwith %}"),
            ("{{ generation }}{# {% generation %} #}", "{{ generation }}{# {% generation %} #}"),
            (
                "{% raw %}{% generation %}{{ a % b }}{% endraw %}{{ a%b }}",
                "{% raw %}{% generation %}{{ a % b }}{% endraw %}{{ __percent(a,b) }}",
            ),
            ("{{ '%s' % x | upper + 'y' }}", "{{ __percent('%s' , x | upper) + 'y' }}"),
            (
                "{{ a + b * c % d % -e ** 2 }}",
                "{{ a + __percent(__percent(b * c , d) , -e ** 2) }}",
            ),
            ("{%- if loop.index0 % 2 == 0 -%}", "{%- if __percent(loop.index0 , 2) == 0 -%}"),
            (
                "{{ f(x, '%s %s' % (a, b)) if c else 1 % 2 }}",
                "{{ f(x, __percent('%s %s' , (a, b))) if c else __percent(1 , 2) }}",
            ),
            ("{{ {'a': {'b': 5 % 3}} }}", "{{ {'a': {'b': __percent(5 , 3)}} }}"),
            (
                "{%- for k, v in m.items() if k % 2 -%}",
                "{%- for k, v in (m.items())|__iterable if __percent(k , 2) -%}",
            ),
            (
                "{% for x in a if b recursive %}{{ loop(x) }}",
                "{% for x in (a)|__iterable if b recursive %}{{ loop(x) }}",
            ),
            ("50 % {of} it {{ \"a % b\" }}", "50 % {of} it {{ \"a % b\" }}"),
            ("{%- set x = '}}' %}{{ x - 1 }}", "{%- set x = '}}' %}{{ x - 1 }}"),
            (
                "{% raw %}{%{%{{%- endraw %}{{ a%b }}",
                "{% raw %}{%{%{{%- endraw %}{{ __percent(a,b) }}",
            ),
        ] {
            assert_eq!(to_minijinja(source), expected);
        }
    }

    #[test]
    fn the_time_grows_with_the_length_only() {
        let begin = std::time::Instant::now();
        let many = 1 << 19;
        for source in [
            format!("{{{{ {} }}}}", "%".repeat(many)),
            format!("{{{{ a{} }}}}", "%a".repeat(many)),
            format!("{{% raw %}}{}", "{%".repeat(many)),
            format!("{{% raw %}}{}", "{% '".repeat(many)),
        ] {
            assert_eq!(to_minijinja(&source), source);
        }
        // Minutes, if it grew with the square.
        assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
    }
}
