//! When a checkpoint waits for the previous ones.

use std::time::Duration;

use super::*;

fn staging(step: u64) -> Staging {
    Staging { step, epoch: 0, ranks: Vec::new(), record: None, preprocessing: None, steps: None, last: false }
}

#[test]
fn only_a_third_checkpoint_waits_and_none_is_left_out() {
    let (requests, taken) = channel();
    let (done, written) = channel();
    let (_alarm, changed) = channel();
    let mut writer = Writer {
        requests: Some(requests),
        progress: Arc::new(Progress::new(&[])),
        copying: false,
        written,
        open: 0,
        last_step: None,
        device: tch::Device::Cpu,
        tensors_described: 0,
        changed,
        threads: Vec::new(),
    };
    writer.stage(staging(1)).unwrap();
    writer.stage(staging(2)).unwrap();
    let third = std::thread::spawn(move || {
        writer.stage(staging(3)).unwrap();
        writer
    });
    let deadline = Instant::now() + Duration::from_mins(1);
    while !progress::seen().waits {
        assert!(Instant::now() < deadline && !third.is_finished(), "the third does not wait");
        std::thread::yield_now();
    }
    let steps = || -> Vec<u64> {
        let step = |request| match request {
            Request::Write { staging, .. } => staging.step,
            Request::Again => 0,
        };
        taken.try_iter().map(step).collect()
    };
    assert_eq!(steps(), [1, 2]);
    done.send(true).unwrap();
    let mut writer = third.join().unwrap();
    assert_eq!(steps(), [3]);
    done.send(true).unwrap();
    done.send(false).unwrap();
    assert_eq!(writer.wait_written(), Some(false), "how the last one went");
    writer.stage(staging(4)).unwrap();
    assert_eq!(steps(), [4]);
}
