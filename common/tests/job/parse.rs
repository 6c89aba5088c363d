//! An invalid job is rejected with its key; overrides and defaults are applied.

use lockstep_common::job::{JobError, JobSpec, parse_toml};

use super::JOB;

fn refused(from: &str, to: &str) -> String {
    assert!(JOB.contains(from), "{from}");
    parse_toml(&JOB.replace(from, to), &[]).unwrap_err().to_string()
}

#[test]
fn an_unknown_key_is_refused_with_its_path_and_the_nearest_known_one() {
    assert_eq!(refused("steps = 10", "step = 10"), "unknown key `step`: did you mean `steps`?");
    assert_eq!(
        refused("lr = 0.1", "lr = 0.1, momentun = 1.0"),
        "unknown key `optimizer.momentun`: did you mean `momentum`?"
    );
    assert_eq!(
        refused("hidden = [8]", "hidden = [8], droput = 0.1"),
        "unknown key `model.droput`: did you mean `dropout`?"
    );
}

#[test]
fn a_wrong_type_and_a_missing_key_are_refused_with_the_key() {
    assert!(refused("steps = 10", "steps = \"ten\"").starts_with("key `steps`: invalid type: string \"ten\""));
    assert!(refused("lr = 0.1", "lr = []").starts_with("key `optimizer.lr`: invalid type: sequence"));
    let missing = |key: &str| format!("key `{key}`: required, but missing");
    assert_eq!(refused("batch = { size = 8 }", "batch = { last = \"pad\" }"), missing("batch.size"));
    assert_eq!(refused("steps = 10", ""), missing("steps"));
    let long = refused("steps = 10", &format!("steps = \"{}\"", "x".repeat(10_000)));
    assert!(long.starts_with("key `steps`: invalid type: string \"xxx") && long.len() < 300, "{}", long.len());
    assert!(refused("\"mlp\"", "\"mpl\"").contains("unknown variant `mpl`"));
    assert!(refused("steps = 10", "steps = = 10").starts_with("not valid TOML"));
}

#[test]
fn a_name_has_up_to_100_letters_of_any_alphabet() {
    let named = |letter: &str, times: usize| parse_toml(JOB, &[format!("name=\"{}\"", letter.repeat(times))]);
    assert!(named("学", 100).is_ok());
    assert!(named("学", 101).unwrap_err().to_string().contains("100 printable characters"));
}

#[test]
fn overrides_set_nested_keys_with_their_types() {
    let set = |text: &str| parse_toml(JOB, &[text.to_owned()]);
    assert_eq!(set("steps=20").unwrap().steps, 20);
    assert_eq!(set("optimizer.clip_norm=1.5").unwrap().optimizer.clip_norm, Some(1.5));
    assert_eq!(set("name=other").unwrap().name, "other");
    assert_eq!(set("checkpoint.every_steps=5").unwrap().checkpoint.every_steps, 5);
    assert!(matches!(set("steps"), Err(JobError::Override { .. })));
    assert!(matches!(set("steps.x=1"), Err(JobError::Override { .. })));
    assert!(matches!(set("optimizer.rl=1"), Err(JobError::UnknownKey { .. })));
}

#[test]
fn the_canonical_form_is_the_same_whatever_was_left_to_defaults() {
    let spelled = JOB.replace("steps = 10", "steps = 10\nseed = 0\ncheckpoint = { every_steps = 0 }");
    let (a, b) = (parse_toml(JOB, &[]).unwrap(), parse_toml(&spelled, &[]).unwrap());
    assert_eq!(a.canonical(), b.canonical());
    assert_eq!(JobSpec::from_canonical(&a.canonical()).unwrap().digest(), a.digest());
    let other = parse_toml(JOB, &["seed=1".into()]).unwrap();
    assert_ne!(other.digest(), a.digest());
}

#[test]
fn what_is_refused_is_quoted_and_not_repeated_whole() {
    let long = "k".repeat(900_000);
    for text in [format!("{JOB}\n[{long}]\n"), format!("{JOB}\n{long} = [\n"), format!("{JOB}\n[data.{long}]\n")] {
        let error = parse_toml(&text, &[]).unwrap_err().to_string();
        assert!(error.contains("kkkk") && error.contains("[..]") && error.len() < 4_096, "{} bytes", error.len());
    }
    for set in [long.clone(), format!("{long}=1"), format!("model.{long}=1"), format!("steps=\"{long}\"")] {
        let error = parse_toml(JOB, &[set]).unwrap_err().to_string();
        assert!(error.contains("kkkk") && error.contains("[..]") && error.len() < 4_096, "{} bytes", error.len());
    }
}
