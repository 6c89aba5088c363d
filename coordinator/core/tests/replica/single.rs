//! A cluster of one replica, and the time of answers.

use lockstep_common::RequestId;
use lockstep_core::command::Submit;
use lockstep_core::replica::{ProposeError, Recovered, Replica, Ticket};
use lockstep_core::{Command, Outcome, Refusal};

use super::lab::{Lab, cancel_nothing, config, joined};

#[test]
fn a_single_voter_leads_at_once_and_answers_only_what_is_durable() {
    let mut replica = Replica::new(config(1, 1), Recovered::default()).unwrap();
    let first = replica.take_output().unwrap();
    assert!(first.leadership.is_some_and(|leadership| leadership.is_self));
    let persist = first.persist.unwrap();
    assert!(persist.sync && persist.entries.len() == 1 && !replica.is_serving());
    replica.propose(Ticket(1), &joined("a"));
    assert!(replica.take_output().is_none(), "a write is under way");
    replica.persisted(persist.number);

    let second = replica.take_output().unwrap();
    let persist = second.persist.unwrap();
    assert_eq!((persist.entries.len(), second.replies.len()), (1, 0), "written, not yet durable, not answered");
    assert!(replica.state().nodes().next().is_none(), "and not applied");
    replica.persisted(persist.number + 7);
    assert!(replica.take_output().is_none(), "that was another write's number");
    replica.persisted(persist.number);

    let third = replica.take_output().unwrap();
    assert_eq!(third.replies, [(Ticket(1), Ok(Outcome::Done))]);
    let persist = third.persist.unwrap();
    assert!(!persist.sync, "the log has it; rows may follow lazily");
    assert_eq!(persist.applied_index, 2);
    assert!(replica.is_serving() && replica.state().nodes().count() == 1);
    replica.persisted(persist.number);
    assert!(replica.take_output().is_none());
}

#[test]
fn a_refusal_is_an_answer() {
    let mut lab = Lab::with_leader(1, 1, &[]);
    lab.propose(Ticket(9), &cancel_nothing());
    lab.settle(&[]);
    let refused = Outcome::Refused(Refusal::NoRun("0123456789".into()));
    assert_eq!(lab.replies[&Ticket(9)], Ok(refused));
}

#[test]
fn what_cannot_be_proposed_is_answered_without_being_written() {
    let mut lab = Lab::with_leader(3, 1, &[]);
    let entries = lab.disks[&1].entries.len();
    lab.replicas.get_mut(&2).unwrap().propose(Ticket(7), &joined("b"));
    let huge = Command::Submit(Submit {
        request: RequestId::from_bytes([2; 16]),
        at_ms: 0,
        job: "x".repeat(17 << 20),
        base_dir: String::new(),
        code: None,
        data: Vec::new(),
        secret: [0; 32],
    });
    lab.propose(Ticket(8), &huge);
    lab.settle(&[]);
    assert_eq!(lab.replies[&Ticket(7)], Err(ProposeError::NotLeader { leader: Some(1) }));
    assert!(matches!(lab.replies[&Ticket(8)], Err(ProposeError::TooLarge { .. })));
    assert_eq!(lab.disks[&1].entries.len(), entries);
}

#[test]
fn a_leader_that_is_cut_off_says_that_it_does_not_know() {
    let mut lab = Lab::with_leader(3, 1, &[]);
    lab.propose(Ticket(5), &joined("late"));
    lab.tick(30, &[2, 3]);
    assert_eq!(lab.replies[&Ticket(5)], Err(ProposeError::Indeterminate));
    assert!(!lab.replicas[&1].leadership().is_self, "no quorum, no leader");
}
