//! An invalid value is rejected with its key, and the text of a job keeps its bytes.

use lockstep_common::Domain;
use lockstep_common::job::{JobSpec, parse_toml};

use super::JOB;

#[test]
fn a_text_keeps_its_bytes_and_its_digest_whatever_is_added_later() {
    let job = parse_toml(JOB, &[]).unwrap();
    // The text of an earlier version, which had neither `report` nor `code`; with a space that the canonical form does not have.
    let text = String::from_utf8(job.canonical()).unwrap();
    let (head, _) = text.split_once(",\"report\"").unwrap();
    let earlier = format!("{head} }}");
    let read = JobSpec::from_canonical(earlier.as_bytes()).unwrap();
    assert_eq!(*read, *job, "absent keys have their defaults");
    assert_eq!(read.canonical(), earlier.as_bytes());
    assert_eq!(read.digest(), Domain::Job.digest(earlier.as_bytes()));
    assert_ne!(read.digest(), job.digest());
}

#[test]
fn values_that_make_no_sense_are_refused_with_the_key() {
    for (set, key) in [
        ("batch.size=9", "batch.size"),
        ("ranks=0", "ranks"),
        ("steps=0", "steps"),
        ("world.processes=5", "world.processes"),
        ("world.min_processes=5", "world.min_processes"),
        ("optimizer.lr=-1.0", "optimizer.lr"),
        ("optimizer.lr=nan", "optimizer.lr"),
        ("optimizer.betas=[0.9, 1.0]", "optimizer"),
        ("optimizer.nesterov=true", "optimizer.nesterov"),
        ("optimizer.clip_norm=0.0", "optimizer.clip_norm"),
        ("model.dropout=1.0", "model.dropout"),
        ("data.validation=1.0", "data.validation"),
        ("eval.every_steps=5", "eval"),
        ("eval={every_steps=5, samples=0}", "eval.samples"),
        ("eval={every_steps=5, feature_importance={samples=1}}", "eval.feature_importance.samples"),
        ("eval={every_steps=5, feature_importance={repeats=0}}", "eval.feature_importance.repeats"),
        ("schedule={kind=\"step\", every_steps=0, factor=0.5}", "schedule.every_steps"),
        ("model={kind=\"gpt\", layers=1, heads=3, width=8, context=4}", "model.heads"),
        ("model={kind=\"resnet\", blocks=1, width=8, outputs=4}", "model.kind"),
    ] {
        let error = parse_toml(JOB, &[set.to_owned()]).expect_err(set).to_string();
        assert!(error.starts_with(&format!("key `{key}`: ")), "{set}: {error}");
    }
}

#[test]
fn an_evaluation_without_samples_says_which_keys_bring_them() {
    let refused = |data: &str| {
        let sets = ["eval={every_steps=5}".to_owned(), format!("data={data}")];
        parse_toml(JOB, &sets).unwrap_err().to_string()
    };
    let table = refused("{kind=\"csv\", path=\"x.csv\", target=\"y\"}");
    assert_eq!(table, "key `eval`: there is no validation data: set `data.validation`");
    let images = refused("{kind=\"idx\", images=\"x\", labels=\"y\"}");
    assert_eq!(
        images,
        "key `eval`: there is no validation data: set `data.validation_images` and `data.validation_labels`"
    );
}

#[test]
fn a_vocabulary_that_tokens_cannot_name_is_refused_of_a_new_job_only() {
    let sets = |dtype: &str, vocabulary: u32| {
        let model = format!("{{kind=\"gpt\", layers=1, heads=1, width=8, context=4, vocabulary={vocabulary}}}");
        [format!("model={model}"), format!("data={{kind=\"tokens\", path=\"x\", dtype=\"{dtype}\"}}")]
    };
    for (dtype, tokens) in [("u8", 256), ("u16", 65_536)] {
        let job = parse_toml(JOB, &sets(dtype, tokens)).unwrap();
        let refused = parse_toml(JOB, &sets(dtype, tokens + 1)).unwrap_err().to_string();
        assert_eq!(
            refused,
            format!(
                "key `model.vocabulary`: {} is more than the {tokens} tokens that `data.dtype = \"{dtype}\"` allows",
                tokens + 1
            )
        );
        let text = String::from_utf8(job.canonical()).unwrap();
        let earlier = text.replace(&format!("\"vocabulary\":{tokens}"), &format!("\"vocabulary\":{}", tokens + 1));
        assert_ne!(earlier, text);
        JobSpec::from_canonical(earlier.as_bytes()).unwrap();
    }
}

#[test]
fn a_batch_that_no_machine_holds_is_refused_of_a_new_job_only() {
    let refused = parse_toml(JOB, &["batch.size=16777220".to_owned()]).unwrap_err().to_string();
    assert_eq!(refused, "key `batch.size`: 16777220 samples per step are too many: at most 16777216 are possible");
    let job = parse_toml(JOB, &["batch.size=16777216".to_owned()]).unwrap();
    let text = String::from_utf8(job.canonical()).unwrap();
    let larger = text.replace("16777216", "16777220");
    JobSpec::from_canonical(larger.as_bytes()).unwrap();
    JobSpec::from_submitted(text.as_bytes()).unwrap();
    let error = JobSpec::from_submitted(larger.as_bytes()).unwrap_err();
    assert!(lockstep_common::chain(&error).contains("key `batch.size`: 16777220 samples"), "{error:?}");
}

#[test]
fn threads_and_layers_that_no_process_can_have_are_refused_of_a_new_job_only() {
    let set = |key: &str| parse_toml(JOB, &[key.to_owned()]);
    let refused = |key: &str| set(key).unwrap_err().to_string();
    let words = "key `numerics.threads`: 4294967295 threads are too many: a process may have 1024";
    assert_eq!(refused("numerics.threads=4294967295"), words);
    assert!(refused("numerics.threads=1025").starts_with("key `numerics.threads`: 1025 "));
    let hidden = |layers: usize| format!("model.hidden=[{}]", vec!["4"; layers].join(","));
    let words = "key `model.hidden`: 10001 layers are too many: a built-in model may have 10000";
    assert_eq!(refused(&hidden(10_001)), words);
    set(&hidden(10_000)).unwrap();
    let text = String::from_utf8(set("numerics.threads=1024").unwrap().canonical()).unwrap();
    let more = text.replace("\"threads\":1024", "\"threads\":50000");
    assert_ne!(text, more);
    JobSpec::from_canonical(more.as_bytes()).unwrap();
    let error = JobSpec::from_submitted(more.as_bytes()).unwrap_err();
    assert!(lockstep_common::chain(&error).contains("key `numerics.threads`: 50000 threads"), "{error:?}");
}
