use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use tempfile::TempDir;

use super::*;

fn address(
    dataset: &str,
    revision: Option<&str>,
    pattern: Option<&'static str>,
) -> Option<Address<'static>> {
    Some(Address { dataset: dataset.to_owned(), revision: revision.map(str::to_owned), pattern })
}

#[test]
fn addresses_are_parsed() {
    assert_eq!(parse("hf://datasets/a/b"), address("a/b", None, None));
    assert_eq!(parse("hf://datasets/a/b/"), address("a/b", None, None));
    assert_eq!(
        parse("hf://datasets/a/b/data/*.parquet"),
        address("a/b", None, Some("data/*.parquet"))
    );
    assert_eq!(parse("hf://datasets/a/b@v1/x@y.txt"), address("a/b", Some("v1"), Some("x@y.txt")));
    assert_eq!(
        parse("hf://datasets/a/b@refs/convert/parquet/c/*"),
        address("a/b", Some("refs/convert/parquet"), Some("c/*"))
    );
    assert_eq!(parse("hf://datasets/a/b@refs/pr/1"), address("a/b", Some("refs/pr/1"), None));
    for wrong in [
        "hf://a/b",
        "hf://datasets/a",
        "hf://datasets/a/",
        "hf://datasets//b",
        "hf://datasets/a/b@/c",
    ] {
        assert_eq!(parse(wrong), None, "{wrong}");
        let error = list(wrong, |_| true).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{wrong}: expected hf://datasets/OWNER/NAME")),
            "{error}"
        );
    }
}

/// A server with one dataset of three files.
fn hub() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request =
                BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let target = request.next().unwrap_or_default();
            request.take_while(|line| !line.is_empty()).for_each(drop);
            let _ =
                stream.write_all(answer(target.split(' ').nth(1).unwrap_or_default()).as_bytes());
        }
    });
    endpoint
}

fn answer(target: &str) -> String {
    let (status, headers, body) = match target {
        "/api/datasets/a/b/revision/main?blobs=true" => {
            let files = r#"[{"rfilename":"z.jsonl","size":13},
                {"rfilename":"d/x.jsonl","size":5},{"rfilename":"LICENSE","size":1}]"#;
            ("200 OK", String::new(), format!(r#"{{"sha":"c0ffee","siblings":{files}}}"#))
        }
        "/api/datasets/a/odd/revision/main?blobs=true" => {
            ("200 OK", String::new(), "[]".to_owned())
        }
        "/datasets/a/b/resolve/c0ffee/z.jsonl" => {
            let headers =
                "x-repo-commit: c0ffee\r\netag: \"e\"\r\ncontent-range: bytes 0-12/13\r\n"
                    .to_owned();
            ("206 Partial Content", headers, "{\"text\":\"hi\"}".to_owned())
        }
        _ => ("404 Not Found", String::new(), String::new()),
    };
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn list_with(
    api: ApiBuilder,
    address: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(HubFile, String, Option<u64>)>> {
    let parsed = parse(address).unwrap();
    let listing = online_listing(api, &parsed).map_err(|cause| failed(address, &cause))?;
    choose(address, &parsed, listing, wanted)
}

fn builder(endpoint: &str, cache: &TempDir) -> ApiBuilder {
    ApiBuilder::new().with_endpoint(endpoint.to_owned()).with_cache_dir(cache.path().to_owned())
}

#[test]
fn files_are_listed_at_one_commit_and_downloaded() {
    let (endpoint, cache) = (hub(), tempfile::tempdir().unwrap());
    let names = |address: &str| -> Vec<String> {
        let listed =
            list_with(builder(&endpoint, &cache), address, |file| file.ends_with(".jsonl"))
                .unwrap();
        listed
            .into_iter()
            .map(|(_, name, _)| name.replace("hf://datasets/a/b@c0ffee/", ""))
            .collect()
    };
    assert_eq!(names("hf://datasets/a/b"), ["d/x.jsonl", "z.jsonl"]);
    assert_eq!(names("hf://datasets/a/b/*"), ["LICENSE", "z.jsonl"]);
    assert_eq!(names("hf://datasets/a/b/**/x.jsonl"), ["d/x.jsonl"]);

    let (file, _, bytes) =
        list_with(builder(&endpoint, &cache), "hf://datasets/a/b/z.jsonl", |_| false)
            .unwrap()
            .remove(0);
    assert_eq!(bytes, Some(13));
    let path = download_with(builder(&endpoint, &cache), &file).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"{\"text\":\"hi\"}");
    // Now from the cache: no server listens at this address.
    let cached = download_with(builder("http://127.0.0.1:1", &cache), &file).unwrap();
    assert_eq!(fs::read(cached).unwrap(), b"{\"text\":\"hi\"}");
    let missing = HubFile { file: "x".to_owned(), ..file };
    let error = download_with(builder(&endpoint, &cache), &missing).unwrap_err().to_string();
    assert!(
        error.starts_with("hf://datasets/a/b@c0ffee/x: cannot be read from the Hugging Face Hub: "),
        "{error}"
    );
}

#[test]
fn faults_name_the_address_and_what_to_do() {
    let (endpoint, cache) = (hub(), tempfile::tempdir().unwrap());
    let error = |endpoint: &str, address: &str| {
        list_with(builder(endpoint, &cache), address, |_| false).unwrap_err().to_string()
    };
    for (endpoint, address, cause) in [
        ("http://127.0.0.1:1", "hf://datasets/a/b", ""),
        (endpoint.as_str(), "hf://datasets/a/none", "404"),
        (endpoint.as_str(), "hf://datasets/a/odd", "the response is not a list of files"),
    ] {
        let error = error(endpoint, address);
        assert!(
            error.starts_with(&format!("{address}: cannot be read from the Hugging Face Hub: ")),
            "{error}"
        );
        assert!(error.contains(cause) && error.ends_with("can be given by their paths"), "{error}");
    }
    let nothing = error(&endpoint, "hf://datasets/a/b/none*");
    assert!(nothing.starts_with("hf://datasets/a/b/none*: nothing to read\nhint: "), "{nothing}");
    assert!(error(&endpoint, "hf://datasets/a/b/[").contains("hint: check the pattern"));
}

#[test]
fn the_cache_serves_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("datasets--a--b").join(name);
    let write = |name: &str, text: &str| {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), text).unwrap();
    };
    write("refs/main", "c0ffee");
    write("snapshots/c0ffee/a.jsonl", "{\"text\":\"hi\"}");
    write("snapshots/c0ffee/d/b.txt", "b");
    let cache = Cache::new(folder.path().to_owned());
    for revision in ["main", "c0ffee"] {
        let Listing { sha, mut siblings } = offline::listing(&cache, "a/b", revision).unwrap();
        siblings.sort_by(|a, b| a.rfilename.cmp(&b.rfilename));
        let names: Vec<_> = siblings.iter().map(|file| file.rfilename.as_str()).collect();
        assert_eq!((sha.as_str(), names), ("c0ffee", vec!["a.jsonl", "d/b.txt"]));
    }
    let cause = offline::listing(&cache, "a/b", "v2").err().unwrap();
    assert!(cause.starts_with("v2 is not in the cache "), "{cause}");
}
