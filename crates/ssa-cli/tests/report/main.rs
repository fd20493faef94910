//! The report in a browser: every figure is drawn and readable on a phone, a tablet and a desktop.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use common::{ssa, workplace};

/// Names of the browser; Debian's first.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Widths of a page, in CSS pixels.
const WIDTHS: [usize; 3] = [390, 768, 1280];

/// A page that shows another one at every width and then looks at it. Frames have exact widths;
/// the window of a browser has a minimum.
fn frames(page: &str) -> String {
    let source = page.replace('&', "&amp;").replace('"', "&quot;");
    let frame = |width| {
        format!(
            r#"<iframe style="width:{width}px;height:4000px;border:0" srcdoc="{source}"></iframe>"#
        )
    };
    let frames: String = WIDTHS.into_iter().map(frame).collect();
    let script = include_str!("check.js");
    format!("<!DOCTYPE html><html><body>{frames}<script>{script}</script></body></html>")
}

/// What a browser writes about a page; `None` without a browser.
fn looked_at(page: &Path) -> Option<(String, String)> {
    let profile = page.with_extension("profile");
    let output = BROWSERS.iter().find_map(|browser| {
        let mut command = Command::new(browser);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]);
        command.args(["--virtual-time-budget=5000", "--dump-dom"]);
        command.arg(format!("--user-data-dir={}", profile.display()));
        command.arg(format!("file://{}", page.display())).output().ok()
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&output.stdout), text(&output.stderr)))
}

/// Looks at a page of at least `least` figures at all widths, and fails for anything that a reader
/// would miss.
fn check(page: &Path, least: usize) {
    let html = fs::read_to_string(page).unwrap();
    let shown = page.with_extension("frames.html");
    fs::write(&shown, frames(&html)).unwrap();
    let Some((dom, log)) = looked_at(&shown) else {
        eprintln!("skipped: no browser ({})", BROWSERS.join(", "));
        return;
    };
    let result = dom.split_once(r#"<pre id="result">"#).and_then(|(_, rest)| rest.split_once('<'));
    let Some((result, _)) = result else { panic!("no result:\n{dom}\n{log}") };
    let result: Value = serde_json::from_str(result).unwrap();
    assert_eq!(result["problems"], Value::Array(vec![]), "{result:#}");
    let count = html.matches("<figure>").count();
    assert!(count >= least, "{count} figures");
    assert_eq!(result["figures"], Value::from(vec![count; WIDTHS.len()]));
    let console: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:#?}");
}

#[test]
fn every_figure_of_a_run_is_readable_at_every_width() {
    let directory = workplace();
    ssa(directory.path(), ["train", "tiny.toml", "--run-dir", "run"]).succeeds();
    check(&directory.path().join("run/report.html"), 4);
}

#[test]
fn every_figure_of_a_comparison_is_readable_at_every_width() {
    let directory = workplace();
    let grid = "config = \"tiny.toml\"\nseeds = [0, 1]\n[[run]]\nname = \"as-it-is\"\n\
                [[run]]\nname = \"without-alignment\"\nset = { objective.alpha = 0.0 }\n";
    fs::write(directory.path().join("grid.toml"), grid).unwrap();
    ssa(directory.path(), ["compare", "grid.toml", "--output", "grid"]).succeeds();
    check(&directory.path().join("grid/comparison.html"), 3);
}
