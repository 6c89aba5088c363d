//! Mirrors into other tools write everything that can be written.

use std::fs;

use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{BlobRef, EncodedBlock, MediaReport, Series};

use crate::agent::{Agent, block, reports};
use crate::support::{Coordinator, fails, run, wait_for};

#[tokio::test]
async fn of_several_targets_those_are_written_that_can_be_and_the_others_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (mut agent, id, process) = Agent::ready(&coordinator, dir.path(), 9).await;
    agent.tell(&process, 2, block(1..=5, 1)).await;
    wait_for("five steps", || (coordinator.ask(&["show", &id])["step"] == 5).then_some(()));

    // A directory cannot be made below a file.
    fs::write(dir.path().join("file"), "").unwrap();
    let [board, csv, parquet] =
        ["file/board", "run.csv", "file/run.parquet"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let mirror = ["mirror", &id, "--addr", &coordinator.address];
    let targets = ["--tensorboard", &board, "--mlflow", "ftp://nowhere", "--csv", &csv, "--parquet", &parquet];
    let said = fails(&[&mirror[..], &targets].concat(), 6);
    for words in [
        format!("`--tensorboard {board}`: cannot"),
        "`--mlflow`: `ftp://nowhere` is not the address of an MLflow server".to_owned(),
        format!("`--parquet {parquet}`: cannot"),
        format!("written: `--csv {csv}`"),
        format!("warning: `--tensorboard {board}` is no longer written"),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }
    let alone = dir.path().join("alone.csv").to_str().unwrap().to_owned();
    assert!(run(&[&mirror[..], &["--csv", &alone]].concat()).status.success());
    let [written, alone] = [csv, alone].map(|path| fs::read_to_string(path).unwrap());
    assert!(written == alone && written.lines().count() > 5, "{written}");

    // If nothing can be written, the command ends at once.
    let said = fails(&[&mirror[..], &["--tensorboard", &board]].concat(), 6);
    assert!(said.contains(&format!("`--tensorboard {board}`: cannot")) && !said.contains("warning"), "{said}");
}

#[tokio::test]
async fn what_cannot_be_written_is_named_and_the_rest_of_its_run_is() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (mut agent, id, process) = Agent::ready(&coordinator, dir.path(), 9).await;
    let mut told = reports(1..=5, 1);
    let blob = Some(BlobRef { digest: vec![1; 5], bytes: 9 });
    told.media.push(MediaReport { name: "cut".into(), step: 5, kind: "image".into(), blob, ..MediaReport::default() });
    let numbers = |name: &str| Series {
        name: name.to_owned(),
        steps: vec![5],
        at_ms: vec![1],
        values: vec![0.5],
        ..Series::default()
    };
    told.series.extend(["\x1b[2J", "plain"].map(numbers));
    agent.tell(&process, 2, Said::Block(EncodedBlock::of(told))).await;
    wait_for("five steps", || (coordinator.ask(&["show", &id])["step"] == 5).then_some(()));

    let csv = dir.path().join("run.csv");
    let said = run(&["mirror", &id, "--addr", &coordinator.address, "--csv", csv.to_str().unwrap()]);
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{words}");
    assert!(words.contains("warning: `\\u{1b}[2J` of step 5 is not written"), "{words}");
    let written = fs::read_to_string(csv).unwrap();
    assert!(written.contains("plain") && written.contains("grad_norm") && !written.contains('\x1b'), "{written}");
    let shown = wait_for("the medium", || {
        let (_, media) = coordinator.get(&format!("/api/runs/{id}/media"));
        media.contains("cut").then_some(media)
    });
    assert!(shown.contains("left out: the digest of its blob has 5 bytes, not 32"), "{shown}");
}

#[tokio::test]
async fn advice_names_a_checkpoint_only_if_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (mut agent, id, process) = Agent::ready(&coordinator, dir.path(), 9).await;
    let lost = |step| {
        let mut told = reports(step..=step, 1);
        told.steps[0].loss = f64::NAN.to_bits();
        Said::Block(EncodedBlock::of(told))
    };
    agent.tell(&process, 2, lost(1)).await;
    let tries = |words: &str| {
        wait_for(words, || {
            let shown = String::from_utf8(coordinator.coord(&["show", &id]).stdout).unwrap();
            shown.contains(words).then_some(shown)
        })
    };
    let shown = tries("try: no checkpoint was written before step 1: submit the run again");
    assert!(!shown.contains("coord resume") && !shown.contains("bf16") && !shown.contains("bfloat16"), "{shown}");
}

#[tokio::test]
async fn a_block_that_is_not_what_its_header_says_is_named_and_refused_and_its_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (mut agent, id, process) = Agent::ready(&coordinator, dir.path(), 9).await;
    agent.tell(&process, 2, block(1..=3, 1)).await;
    // The header of the first claims more steps than the block has; the second cannot be decoded.
    let mut further = EncodedBlock::of(reports(4..=5, 1));
    further.header.get_or_insert_default().last_step = 8;
    agent.tell(&process, 3, Said::Block(further.clone())).await;
    let garbage = EncodedBlock { record: vec![0xff; 99].into(), ..further };
    agent.tell(&process, 4, Said::Block(garbage)).await;
    agent.tell(&process, 5, block(4..=6, 1)).await;
    wait_for("six steps", || (coordinator.ask(&["show", &id])["step"] == 6).then_some(()));

    let words = "`a block of reports` of step 8 is not listed with the run, nor are 1 that came later: its header says steps 4 to 8, \
                 but its body has steps 4 to 5";
    wait_for("the alarm", || {
        let shown = String::from_utf8(coordinator.coord(&["show", &id]).stdout).unwrap();
        shown.contains(words).then_some(())
    });
    let drawn = wait_for("the loss", || {
        let (_, drawn) = coordinator.get(&format!("/api/runs/{id}/points?name=loss&pixels=100"));
        drawn.contains("1006").then_some(drawn)
    });
    assert!(drawn.contains("1001") && !drawn.contains("\"step\":8"), "{drawn}");
    let csv = dir.path().join("run.csv");
    let csv = csv.to_str().unwrap();
    let words = format!("of process 0 of run `{id}` is invalid: its header says steps 4 to 8");
    for arguments in [&["show", &id, "--metrics"][..], &["diff", &id, &id], &["mirror", &id, "--csv", csv]] {
        let said = fails(&[arguments, &["--addr", &coordinator.address]].concat(), 8);
        assert!(said.contains(&words), "{said}");
    }
}
