use super::super::Config;
use super::*;

const CHAT: &str = "smollm2-135m-instruct-int4";

fn read(lines: &str) -> Result<UpstreamSettings, String> {
    let text = format!("[inference.upstream.{CHAT}]\n{lines}");
    Config::from_text(&text, Path::new("config.toml"))
        .map(|config| config.inference.upstreams[CHAT].clone())
        .map_err(|error| error.to_string())
}

const LEAST: &str = "policy = \"always\"\nurl = \"https://gpu.example/openai\"\nmodel = \"m\"\n";

#[test]
fn the_least_that_is_written_is_enough() {
    let settings = read(LEAST).unwrap();
    assert_eq!(settings.policy, UpstreamPolicy::Always);
    assert_eq!(settings.protocol, Protocol::OpenAi);
    assert_eq!(
        settings.access.base.to_string(),
        "https://gpu.example/openai"
    );
    assert_eq!(settings.access.authority, None);
}

#[test]
fn what_cannot_be_meant_is_named_with_its_key() {
    for (line, named) in [
        ("polcy = 1", "polcy"),
        ("protocol = \"grpc\"", "protocol"),
        ("connect_ms = 1", "connect_ms"),
        ("first_token_ms = 100", "first_token_ms"),
        ("total_ms = 100", "total_ms"),
        ("rest_max_ms = 10", "rest_max_ms"),
        ("failures = 0", "failures"),
        ("answers_max = 0", "answers_max"),
        ("key_file = \"relative\"", "key_file"),
        (
            "[inference.upstream.smollm2-135m-instruct-int4.kserve]",
            "kserve.endpoint",
        ),
    ] {
        let message = read(&format!("{LEAST}{line}\n")).unwrap_err();
        assert!(message.contains(named), "{named:?} in {message}");
    }
    let without = |member: &str| {
        let lines = LEAST.lines().filter(|line| !line.starts_with(member));
        read(&lines.collect::<Vec<_>>().join("\n")).unwrap_err()
    };
    for member in ["policy", "url", "model"] {
        assert!(without(member).contains(member), "{member}");
    }
    let text = format!("[inference.upstream.all-minilm-l6-v2-int8]\n{LEAST}");
    let error = Config::from_text(&text, Path::new("config.toml")).unwrap_err();
    assert!(error.to_string().contains("understood here"), "{error}");
}

#[test]
fn clear_text_leaves_this_machine_only_when_the_file_says_so() {
    let url = |url: &str, more: &str| {
        read(&format!(
            "policy = \"always\"\nurl = \"{url}\"\nmodel = \"m\"\n{more}"
        ))
    };
    assert!(url("http://127.0.0.1:8000", "").is_ok());
    assert!(
        url("http://gpu.example", "")
            .unwrap_err()
            .contains("allow_clear")
    );
    assert!(url("http://gpu.example", "allow_clear = true").is_ok());
    assert!(
        url("http://localhost", "ca = \"/ca.pem\"")
            .unwrap_err()
            .contains("https://")
    );
    assert!(
        url("https://gpu.example/v1", "")
            .unwrap_err()
            .contains("/v1")
    );
    let message = url("https://me:hunter2@gpu.example", "").unwrap_err();
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_bundle_names_no_files_of_this_machine() {
    let raw: RawUpstream = toml::from_str(LEAST).unwrap();
    let path = Path::new("/bundles/b/model.toml");
    assert_eq!(of_bundle(&raw, path).unwrap().model, "m");
    for line in [
        "key_file = \"/etc/shadow\"",
        "ca = \"credential:fleet-ca\"",
        "allow_clear = true",
        "[kserve]\ntemplate = \"/etc/shadow\"",
    ] {
        let raw: RawUpstream = toml::from_str(&format!("{LEAST}{line}\n")).unwrap();
        let message = of_bundle(&raw, path).unwrap_err().to_string();
        assert!(message.contains("/bundles/b/model.toml"), "{message}");
        assert!(message.contains("a bundle may not"), "{message}");
    }
}
