//! `predict.py` of an export computes the same scores from raw files as the run's own code, bit for bit, with the same batches, threads
//! and level. It prints predictions in the units of the training data.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod exported;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use exported::{Exported, arrays, images, npy, oracle, said, torch};
use lockstep_support::{Outcome, printed};
use lockstep_tests::{Cluster, Job, digits};
use serde_json::Value;

#[test]
fn a_table_of_classes_is_scored_as_the_run_scores_it() {
    let (dir, python) = (tempfile::tempdir().unwrap(), torch());
    let cluster = Cluster::start(dir.path(), 1);
    let exported = Exported::of(&cluster, &python, &digits(dir.path()), dir.path(), &[]);
    let table = dir.path().join("digits.csv");
    exported.compare(&[table.to_str().unwrap()], 1_798, &["24"]);
    let (out, words) = exported.predict(&[table.to_str().unwrap()]);
    assert!(said(&words, "accuracy") > 0.9 && said(&words, "samples") == 1797.0, "{words}");
    assert!(out.starts_with("row,label,probability\n0,"), "{}", &out[..80]);

    // Columns are found by name in any order, and the target column may be absent.
    let text = fs::read_to_string(&table).unwrap();
    let mut other = String::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split(',').collect();
        let reversed: Vec<&str> = cells[..64].iter().rev().copied().collect();
        writeln!(other, "{}", reversed.join(",")).unwrap();
    }
    let path = dir.path().join("other.csv");
    fs::write(&path, &other).unwrap();
    assert_eq!(exported.predict(&[path.to_str().unwrap()]), (out.clone(), String::new()));
    // Empty lines are skipped, as in training.
    fs::write(&path, format!("\n\n{}", text.replacen('\n', "\n\n", 1))).unwrap();
    assert_eq!(exported.predict(&[path.to_str().unwrap()]).0, out);

    let less: Vec<&str> = other.lines().map(|line| line.rsplit_once(',').unwrap().0).collect();
    let (header, rest) = (text.lines().next().unwrap(), text.trim_end().rsplit_once(',').unwrap().0);
    let refused = [
        (less.join("\n"), "has no column `p00`; the model takes p00, p01,"),
        // Values that training refuses as classes are refused.
        (format!("{rest},-100\n"), "sample 1796: `-100.0` is not a class from 0 to 9"),
        (format!("{rest},4.9\n"), "`4.9` is not a class"),
        (header.to_owned(), "holds no rows"),
        (format!("{rest},\"4"), "the last quoted cell is not closed: the file is truncated"),
        // As in training, a no-break space is part of a name, and only ASCII digits form numbers.
        (text.replacen("p00,", "p00\u{a0},", 1), "has no column `p00`"),
        (text.replacen("\n0,", "\n\u{ff11},", 1), "is not a finite number"),
        (format!("{header}\n{}", "1".repeat(200_000)), "is not a table"),
    ];
    let files: Vec<(PathBuf, &str)> = refused
        .into_iter()
        .enumerate()
        .map(|(number, (table, words))| {
            let file = dir.path().join(format!("refused-{number}.csv"));
            fs::write(&file, table).unwrap();
            (file, words)
        })
        .collect();
    let files: Vec<([&Path; 1], &str)> = files.iter().map(|(file, words)| ([file.as_path()], *words)).collect();
    let mut cases: Vec<(&[&Path], &str)> = files.iter().map(|(file, words)| (&file[..], *words)).collect();
    let folder = [dir.path()];
    cases.push((&folder, "cannot read `"));
    exported.refuses(&cases);

    // A value that no training row had causes a note.
    fs::write(&path, text.replacen("\n0,", "\n7,", 1)).unwrap();
    let words = exported.predict(&[path.to_str().unwrap()]).1;
    assert!(
        words.contains("note: column `p00` was always 0.0 in training: the model has not learned what 7.0 means"),
        "{words}"
    );

    let columns = exported.manifest()["preprocessing"]["inputs"]["columns"].as_array().unwrap().clone();
    assert_eq!(columns.len(), 64);
    // The first pixel is black in every image.
    assert_eq!((&columns[0]["constant"], &columns[0]["deviation"]), (&true.into(), &1.0.into()));
    assert!(exported.card().contains("| input | column | mean | deviation |"));
}

#[test]
fn a_regression_is_answered_in_the_units_of_its_target() {
    let (dir, python) = (tempfile::tempdir().unwrap(), torch());
    let mut table = "size,age,price\n".to_owned();
    for row in 0..200_u32 {
        let (size, age) = (50 + row * 37 % 91, row * 53 % 40);
        writeln!(table, "{size},{age},{}", 1000 * size + 250_000 - 2_000 * age).unwrap();
    }
    fs::write(dir.path().join("t.csv"), table).unwrap();
    let job = Job::write(
        dir.path(),
        r#"
            name = "prices"
            seed = 2
            steps = 300
            batch = { size = 24 }
            model = { kind = "mlp", hidden = [16], outputs = 1, activation = "tanh" }
            data = { kind = "csv", path = "t.csv", target = "price", task = "regression", validation = 0.1 }
            optimizer = { kind = "adam", lr = 0.02 }
            eval = { every_steps = 300 }
        "#,
    );
    let cluster = Cluster::start(dir.path(), 1);
    let exported = Exported::of(&cluster, &python, &job, dir.path(), &[]);
    let table = dir.path().join("t.csv");
    exported.compare(&[table.to_str().unwrap()], 201, &["24", "7"]);
    let (out, words) = exported.predict(&[table.to_str().unwrap()]);
    assert!(said(&words, "loss") < 0.01, "{words}");
    let rows: Vec<&str> = out.lines().collect();
    assert_eq!((rows[0], rows.len()), ("row,price", 201));
    let price: f64 = rows[1].strip_prefix("0,").unwrap().parse().unwrap();
    assert!((price - 300_000.0).abs() < 10_000.0, "a price, not a standardised one: {price}");
    // Equal to the last bit: the score, with the standardisation of the manifest undone.
    let target = exported.manifest()["preprocessing"]["targets"]["standardised"].clone();
    let scores = exported.scores("24");
    let bits = scores.lines().nth(1).unwrap().strip_prefix("0,").unwrap();
    let score = f64::from(f32::from_bits(u32::from_str_radix(bits, 16).unwrap()));
    assert_eq!(price, score * target["deviation"].as_f64().unwrap() + target["mean"].as_f64().unwrap());
    assert!(exported.card().contains("The output is column `price`, standardised"), "{}", exported.card());
}

#[test]
fn raw_images_are_scored_as_the_run_scores_them() {
    let (dir, python) = (tempfile::tempdir().unwrap(), torch());
    let job = images(dir.path(), r#"{ kind = "resnet", blocks = 1, width = 8, outputs = 10 }"#);
    let cluster = Cluster::start(dir.path(), 1);
    let exported = Exported::of(&cluster, &python, &job, dir.path(), &[]);
    let files = ["images", "labels"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    exported.compare(&[&files[0], &files[1]], 301, &["7"]);
    let (out, words) = exported.predict(&[&files[0], &files[1]]);
    assert!(said(&words, "accuracy") > 0.5, "{words}");
    // A gzipped file without labels.
    printed(Command::new("gzip").args(["-k", &files[0]]));
    assert_eq!(exported.predict(&[&format!("{}.gz", files[0])]), (out, String::new()));
    let half = fs::read(format!("{}.gz", files[0])).map(|bytes| bytes[..bytes.len() / 2].to_vec()).unwrap();
    fs::write(dir.path().join("half"), half).unwrap();
    assert!(exported.card().contains("8-bit pixels of shape [1, 8, 8]"));
    let [images, half] = ["images", "half"].map(|name| dir.path().join(name));
    let words = "has targets of uint8 [300, 8, 8]; the model takes 1 a sample";
    exported.refuses(&[(&[&half], "half` is not a whole gzip file"), (&[&images, &images], words)]);
    // A changed byte of the manifest and a flipped bit of a weight are refused.
    let manifest = exported.to.join("manifest.json");
    for (name, from_end) in [("manifest.json", 2), ("model.safetensors", 1000)] {
        let path = exported.to.join(name);
        let whole = fs::read(&path).unwrap();
        let mut other = whole.clone();
        other[whole.len() - from_end] ^= 1;
        fs::write(&path, other).unwrap();
        let words = format!("`{name}` was changed after the export");
        exported.refuses(&[(&[&images], words.as_str())]);
        fs::write(&path, &whole[..whole.len() - 8]).unwrap();
        exported.refuses(&[(&[&images], words.as_str())]);
        fs::write(&path, whole).unwrap();
    }
    fs::remove_file(manifest).unwrap();
    exported.refuses(&[(&[&images], "cannot read `manifest.json`, which must be beside this script")]);
}

#[test]
fn a_torchscript_module_is_scored_and_takes_raw_inputs_on_request() {
    let (dir, python) = (tempfile::tempdir().unwrap(), torch());
    let job = images(dir.path(), r#"{ kind = "torchscript", path = "net.pt" }"#);
    oracle(&python, &["make", dir.path().join("net.pt").to_str().unwrap()]);
    let cluster = Cluster::start(dir.path(), 1);
    let exported = Exported::of(&cluster, &python, &job, dir.path(), &["--raw-inputs"]);
    let files = ["images", "labels"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    exported.compare(&[&files[0], &files[1]], 301, &["7"]);
    assert_eq!(oracle(&python, &["raw", exported.to.to_str().unwrap(), &files[0]]).trim(), "true");

    // Without `--raw-inputs` there is no such module, and a replaced module is refused.
    let plain = dir.path().join("plain");
    let report = cluster.ask(&["export", &exported.checkpoint, "--to", plain.to_str().unwrap()]);
    assert_eq!(
        report["files"],
        serde_json::json!(["README.md", "manifest.json", "model.safetensors", "model.pt", "predict.py"])
    );
    fs::copy(dir.path().join("net.pt"), exported.to.join("model.pt")).unwrap();
    let words = "`model.pt` was changed after the export";
    exported.refuses(&[(&[&dir.path().join("images")], words)]);
}

/// `forward` changes buffers, but each batch starts with the checkpoint's buffers, as in the run's own evaluation.
#[test]
fn a_torchscript_module_that_changes_buffers_in_evaluation_is_scored_as_the_run_scores_it() {
    let (dir, python) = (tempfile::tempdir().unwrap(), torch());
    let job = images(dir.path(), r#"{ kind = "torchscript", path = "net.pt" }"#);
    oracle(&python, &["make-counting", dir.path().join("net.pt").to_str().unwrap()]);
    let cluster = Cluster::start(dir.path(), 1);
    let exported = Exported::of(&cluster, &python, &job, dir.path(), &[]);
    let files = ["images", "labels"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    exported.compare(&[&files[0], &files[1]], 301, &["48", "300"]);
    fs::remove_file(exported.to.join("model.pt")).unwrap();
    exported.refuses(&[(&[&dir.path().join("images")], "cannot read `model.pt`, which must be beside this script")]);

    // Without the module's file, the weights can still be exported.
    fs::remove_file(dir.path().join("net.pt")).unwrap();
    let weights = dir.path().join("weights");
    let export = ["export", &exported.checkpoint, "--to", weights.to_str().unwrap()];
    let refused = cluster.coord(&export);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.status.code() == Some(8) && said.contains("`--without-module` to export its weights alone"),
        "{said}"
    );
    let report = cluster.ask(&[&export[..], &["--without-module"]].concat());
    assert_eq!(report["files"], serde_json::json!(["README.md", "manifest.json", "model.safetensors"]));
    let card = fs::read_to_string(weights.join("README.md")).unwrap();
    assert!(card.contains("There is no `predict.py`: the module was left out"), "{card}");
}

#[test]
fn arrays_that_are_none_and_samples_without_a_prediction_are_refused_by_name() {
    let (dir, python) = (tempfile::tempdir().unwrap(), torch());
    let numbers: Vec<f32> = (0..256_u16).map(|value| f32::from(value * 37 % 101) / 50.0).collect();
    let bytes = |numbers: &[f32]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_le_bytes()).collect() };
    let classes: Vec<u8> = (0..64).map(|row| row % 2).collect();
    fs::write(dir.path().join("x.npy"), npy("<f4", "64, 4", &bytes(&numbers))).unwrap();
    fs::write(dir.path().join("y.npy"), npy("|u1", "64", &classes)).unwrap();
    let job = arrays(dir.path(), "{ kind = 'mlp', hidden = [9], outputs = 2 }");
    let cluster = Cluster::start(dir.path(), 1);
    let exported = Exported::of(&cluster, &python, &job, dir.path(), &[]);
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    exported.compare(&[&file("x.npy"), &file("y.npy")], 65, &["7"]);
    fs::write(dir.path().join("empty.npy"), "").unwrap();
    fs::write(dir.path().join("texts.npy"), npy("<U1", "64", &[97, 0, 0, 0].repeat(64))).unwrap();
    let [empty, texts, x] = ["empty.npy", "texts.npy", "x.npy"].map(|name| dir.path().join(name));
    let words = "is not an npy array of numbers";
    exported.refuses(&[(&[&empty], words), (&[&texts], words), (&[&x, &texts], words)]);
    let mut holed = numbers;
    holed[5] = f32::NAN;
    fs::write(dir.path().join("x.npy"), npy("<f4", "64, 4", &bytes(&holed))).unwrap();
    exported.tells_of_a_full_disk(&dir.path().join("x.npy"));
    let Outcome { code, printed: out, said } = exported.try_predict(&[&file("x.npy")]);
    assert!(code == 1 && said.contains("1 of 64 samples have no prediction"), "{said}");
    assert_eq!((out.lines().count(), out.lines().nth(2)), (65, Some("1,,nan")));
}

#[test]
fn a_module_that_answers_its_loss_gets_targets_in_the_shape_of_the_file() {
    let (dir, python) = (tempfile::tempdir().unwrap(), torch());
    let numbers: Vec<u8> = (0..256_u16).flat_map(|value| (f32::from(value * 37 % 101) / 50.0).to_le_bytes()).collect();
    let classes: Vec<u8> = (0..64).map(|row| row % 5).collect();
    fs::write(dir.path().join("x.npy"), npy("<f4", "64, 4", &numbers)).unwrap();
    fs::write(dir.path().join("y.npy"), npy("|u1", "64, 1", &classes)).unwrap();
    oracle(&python, &["make-loss", dir.path().join("net.pt").to_str().unwrap()]);
    let job = arrays(dir.path(), "{ kind = 'torchscript', path = 'net.pt', output = 'loss' }");
    let cluster = Cluster::start(dir.path(), 1);
    let exported = Exported::of(&cluster, &python, &job, dir.path(), &[]);
    let files = ["x.npy", "y.npy"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let (_, words) = exported.predict(&[&files[0], &files[1], "--batch", "64"]);
    let wanted: f64 =
        oracle(&python, &["loss", exported.to.to_str().unwrap(), &files[0], &files[1]]).trim().parse().unwrap();
    assert_eq!(said(&words, "loss"), wanted);
    assert!(exported.card().contains("prints the loss of files with targets: the module returns no predictions"));
}

#[test]
fn a_language_model_is_scored_and_continued() {
    let (dir, python) = (tempfile::tempdir().unwrap(), torch());
    let text: String = (0..900).map(|word| ["lock", "step ", "and ", "key "][word * word % 7 % 4]).collect();
    fs::write(dir.path().join("text"), &text).unwrap();
    let job = Job::write(
        dir.path(),
        r#"
            name = "text"
            seed = 5
            steps = 60
            ranks = 2
            batch = { size = 48 }
            model = { kind = "gpt", layers = 2, heads = 2, width = 16, context = 15, dropout = 0.1 }
            data = { kind = "tokens", path = "text", validation = 0.2 }
            optimizer = { kind = "adamw", lr = 0.01 }
            eval = { every_steps = 60 }
        "#,
    );
    let cluster = Cluster::start(dir.path(), 1);
    let exported = Exported::of(&cluster, &python, &job, dir.path(), &[]);
    let file = dir.path().join("text");
    exported.compare(&[file.to_str().unwrap()], text.len() / 16, &["7"]);

    // The validation windows are the last ones of the file, so loss and perplexity equal those of the run's evaluation.
    let windows = text.len() / 16;
    let kept = (windows as f64 * 0.2).round() as usize;
    let tail = dir.path().join("tail");
    fs::write(&tail, &text.as_bytes()[(windows - kept) * 16..windows * 16]).unwrap();
    let (out, _) = exported.predict(&[tail.to_str().unwrap()]);
    let eval = exported.eval();
    assert_eq!(said(&out, "loss"), eval["loss"].as_f64().unwrap());
    assert_eq!(said(&out, "perplexity"), eval["perplexity"].as_f64().unwrap());
    assert_eq!(said(&out, "accuracy"), eval["accuracy"].as_f64().unwrap());

    // A file that looks like another type is refused without `--accept-as-is`.
    let [other, wider] = ["other", "wider"].map(|name| dir.path().join(name));
    let wide: Vec<u8> = (0..900_u32).flat_map(|word| (word * 7919 % 1000).to_le_bytes()).collect();
    fs::write(&other, b"\x93NUMPY".repeat(90)).unwrap();
    fs::write(&wider, wide).unwrap();
    let looks = |what: &str| format!("looks like {what}, not like u8 tokens");
    exported.refuses(&[(&[&other], &looks("an npy array")), (&[&wider], &looks("32-bit integers"))]);
    let large: Vec<u8> = (0..4000_u32).flat_map(|at| (at * at % 1021 * (at % 5)).to_le_bytes()[..2].to_vec()).collect();
    fs::write(&wider, large).unwrap();
    exported.refuses(&[(&[&wider], &looks("16-bit integers"))]);
    exported.predict(&[other.to_str().unwrap(), "--accept-as-is"]);

    let go_on =
        |seed: &str| exported.try_predict(&[file.to_str().unwrap(), "--continue", "40", "--seed", seed]).printed;
    let tokens = go_on("1");
    assert_eq!((tokens.chars().count(), &go_on("1")), (40, &tokens));
    assert_ne!(go_on("2"), tokens);
    assert!(exported.card().contains("--continue 200"));
}

#[test]
fn an_export_has_the_same_bytes_each_time_and_the_modes_that_umask_gives() {
    let (dir, python) = (tempfile::tempdir().unwrap(), torch());
    let cluster = Cluster::start(dir.path(), 1);
    let exported = Exported::of(
        &cluster,
        &python,
        &images(dir.path(), r#"{ kind = "mlp", hidden = [9], outputs = 10 }"#),
        dir.path(),
        &[],
    );
    let again = dir.path().join("again");
    for _ in 0..3 {
        cluster.run(&["export", &exported.checkpoint, "--to", again.to_str().unwrap()]);
        for entry in fs::read_dir(&exported.to).unwrap() {
            let name = entry.unwrap().file_name();
            assert_eq!(fs::read(exported.to.join(&name)).unwrap(), fs::read(again.join(&name)).unwrap(), "{name:?}");
        }
        fs::remove_dir_all(&again).unwrap();
    }
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
    for name in ["model.safetensors", "manifest.json", "README.md", "predict.py"] {
        assert_eq!(mode(&exported.to.join(name)), mode(&plain), "{name}");
    }
}

#[test]
fn a_resume_goes_on_with_the_moments_of_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &[]);
    cluster.finished(&run);
    let (_, first) = cluster.checkpoints(&run)[0].clone();
    let preprocessing = |checkpoint: &str| {
        let manifest: Value = serde_json::from_str(&cluster.run(&["manifest", checkpoint])).unwrap();
        (manifest["preprocessing"].clone(), manifest["environment"]["preprocessing"].clone())
    };
    let (before, note) = preprocessing(&first);
    assert_eq!(note, Value::Null);

    // Add 1 to every value of the second column. With moments of its own, the resumed run would have the same inputs as before.
    let path = dir.path().join("digits.csv");
    let text = fs::read_to_string(&path).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    let mut other = format!("{header}\n");
    for row in rows.lines() {
        let cells: Vec<&str> = row.split(',').collect();
        let second = cells[1].parse::<f64>().unwrap() + 1.0;
        writeln!(other, "{},{second},{}", cells[0], cells[2..].join(",")).unwrap();
    }
    fs::write(&path, other).unwrap();
    let refused = cluster.coord(&["resume", &first]);
    assert!(!refused.status.success());
    let resumed = cluster.ask(&["resume", &first, "--accept", "data.digits.csv"]);
    let resumed = resumed["run"].as_str().unwrap().to_owned();
    let state = cluster.finished(&resumed);
    let (_, last) = cluster.checkpoints(&resumed).last().unwrap().clone();
    let (after, note) = preprocessing(&last);
    assert_eq!(after, before);
    let column = &before["inputs"]["columns"][1];
    let words = format!("column `{}`: mean {}", column["column"].as_str().unwrap(), column["mean"]);
    assert!(note.as_str().unwrap().contains(&words), "{words}: {note}");
    // A resume of that run with unchanged data also uses these moments.
    let (_, middle) = cluster.checkpoints(&resumed)[0].clone();
    assert_eq!(cluster.finished(&cluster.resume(&middle)), state);
    assert_eq!(preprocessing(&middle).0, before);
}
