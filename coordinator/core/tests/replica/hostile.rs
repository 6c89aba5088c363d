//! Arbitrary bytes as messages: the replica returns a typed error or ignores them, and never panics (I11).

use lockstep_core::replica::{PeerMessage, Recovered, Replica, StepError};
use proptest::prelude::*;

use super::lab::{Lab, config};

/// Messages of all kinds: of an election, entries, heartbeats, a snapshot.
fn messages() -> Vec<PeerMessage> {
    let mut lab = Lab::with_leader(3, 12, &[3]);
    lab.tick(20, &[]);
    lab.sent
}

/// Passes a message to the replica, and then runs the replica for 25 ticks.
fn step(replica: &mut Replica, bytes: &[u8]) -> Result<(), StepError> {
    let stepped = replica.step(bytes);
    for _ in 0..25 {
        replica.tick();
        while let Some(out) = replica.take_output() {
            if let Some(persist) = out.persist {
                replica.persisted(persist.number);
            }
        }
    }
    stepped
}

#[test]
fn strangers_and_other_versions_are_refused() {
    let sent = messages();
    let mut lab = Lab::with_leader(3, 0, &[]);
    let to_two = sent.iter().find(|message| message.to == 2).unwrap();
    let one = lab.replicas.get_mut(&1).unwrap();
    assert!(matches!(step(one, &to_two.bytes), Err(StepError::Stranger { from: 1, to: 2 })));
    let mut other_version = to_two.bytes.clone();
    other_version[0] = 2;
    assert!(matches!(step(one, &other_version), Err(StepError::Malformed(_))));
    let mut longer = to_two.bytes.clone();
    longer.push(0);
    assert!(matches!(step(one, &longer), Err(StepError::Malformed(_))));
}

#[test]
fn a_replica_whose_disk_was_wiped_says_so() {
    let mut lab = Lab::with_leader(3, 3, &[]);
    lab.sent.clear();
    lab.tick(4, &[]);
    let wiped = &mut Replica::new(config(2, 3), Recovered::default()).unwrap();
    let refused = lab.sent.iter().filter(|message| message.to == 2).map(|message| step(wiped, &message.bytes));
    let refused: Vec<String> = refused.filter_map(Result::err).map(|error| error.to_string()).collect();
    assert!(refused.iter().any(|error| error.contains("but the log ends at 0")), "{refused:?}");
}

#[test]
fn a_message_that_claims_to_be_of_another_kind_does_no_harm() {
    for message in messages() {
        for kind in 0..10 {
            let mut bytes = message.bytes.clone();
            bytes[1] = kind;
            for mut lab in [Lab::new(3), Lab::with_leader(3, 12, &[])] {
                let _ = step(lab.replicas.get_mut(&message.to).unwrap(), &bytes);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_stepped_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut lab = Lab::with_leader(3, 1, &[]);
        let _ = step(lab.replicas.get_mut(&2).unwrap(), &bytes);
    }

    #[test]
    fn a_message_with_some_bytes_changed_is_stepped_without_a_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((0..24_usize, any::<u8>()), 1..3),
        established in any::<bool>(),
    ) {
        let sent = messages();
        let message = &sent[which.index(sent.len())];
        let mut bytes = message.bytes.clone();
        for (at, value) in changes {
            let at = at.min(bytes.len() - 1);
            bytes[at] = value;
        }
        let mut lab = if established { Lab::with_leader(3, 12, &[]) } else { Lab::new(3) };
        let _ = step(lab.replicas.get_mut(&message.to).unwrap(), &bytes);
    }
}
