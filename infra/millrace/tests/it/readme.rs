//! The README's curl lines give the answers that the README shows.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::dev::Installed;
use crate::http::TRANSACTIONS;
use crate::process::look_for;
use crate::servers::repository;

/// What differs from run to run: where in the log the sample load beside it has left room, and when.
const VARYING: [&str; 3] = ["offset", "seq", "recorded_at"];

/// How long after it was accepted a transaction may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the README says the services are.
const GATEWAY: &str = "127.0.0.1:8080";
const QUERY: &str = "127.0.0.1:8081";

/// Every `$ line` of the README's console blocks, and what it shows below.
fn examples(readme: &str) -> Vec<(String, String)> {
    let mut examples: Vec<(String, String)> = Vec::new();
    let mut in_block = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
        } else if in_block && let Some(command) = line.strip_prefix("$ ") {
            examples.push((command.to_owned(), String::new()));
        } else if in_block {
            let (_, answer) = examples.last_mut().expect("a command comes first");
            answer.push_str(line);
            answer.push('\n');
        }
    }
    examples
}

/// The same with everything that varies taken out.
fn comparable(answer: &str) -> Value {
    let Ok(mut json) = serde_json::from_str(answer) else {
        // However lines end: CSV has its own.
        return answer.lines().collect();
    };
    without(&mut json);
    json
}

fn without(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if VARYING.contains(&name.as_str()) {
                    *value = "varies".into();
                } else {
                    without(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without),
        _ => {}
    }
}

#[tokio::test]
async fn every_curl_line_gives_the_answer_shown() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let examples = examples(&readme);
    assert!(examples.len() >= 5, "{examples:?}");
    let installed = Installed::new().await;
    let dev = installed.start("readme", &["dev"]).await;
    let gateway = dev.http(TRANSACTIONS).address.to_string();
    let query = dev.http("/v1/accounts").address.to_string();
    for (line, shown) in &examples {
        let line = line.replace(GATEWAY, &gateway).replace(QUERY, &query);
        // What was posted by the line before is there in a moment.
        let mut given = String::new();
        let run = async || {
            let ended = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert!(ended.status.success(), "{line}: {ended:?}");
            given = String::from_utf8(ended.stdout).unwrap();
            (comparable(&given) == comparable(shown)).then_some(())
        };
        let same = look_for(PATIENCE, run).await;
        assert!(same.is_some(), "{line}\ngives {given}\ninstead of {shown}");
    }
    dev.interrupt(&installed).await;
}
