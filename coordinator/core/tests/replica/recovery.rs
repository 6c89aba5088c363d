//! Recovery of a replica: from its disk, from a damaged disk, and with a snapshot of the leader.

use lockstep_common::{Digest, Domain};
use lockstep_core::replica::{Config, HardState, RecoverError, Recovered, Replica, Ticket};

use super::lab::{Lab, config, joined};

#[test]
fn a_replica_goes_on_from_its_disk_and_its_log_stays_short() {
    let lab = Lab::with_leader(1, 30, &[]);
    let disk = &lab.disks[&1];
    assert!(disk.truncated.index > 10 && disk.entries.len() <= 8, "{:?}", disk.truncated);
    let mut replica = Replica::new(config(1, 1), disk.recover()).unwrap();
    assert_eq!(replica.applied_index(), disk.applied_index);
    assert_eq!(replica.state().rows(), lab.replicas[&1].state().rows());
    replica.propose(Ticket(1), &joined("more"));
    while let Some(out) = replica.take_output() {
        if let Some(persist) = out.persist {
            replica.persisted(persist.number);
        }
    }
    assert_eq!(replica.state().nodes().count(), 31);
}

#[test]
fn what_was_logged_and_not_applied_is_applied_again() {
    let lab = Lab::with_leader(1, 4, &[]);
    let mut disk = lab.disks[&1].clone();
    // The lazy write of the rows was lost.
    (disk.applied_index, disk.hard_state.commit) = (0, 0);
    disk.rows.clear();
    let mut replica = Replica::new(config(1, 1), disk.recover()).unwrap();
    while let Some(out) = replica.take_output() {
        if let Some(persist) = out.persist {
            replica.persisted(persist.number);
        }
    }
    assert_eq!(replica.state().rows(), lab.replicas[&1].state().rows());
}

#[test]
fn a_replica_that_is_far_behind_gets_a_snapshot() {
    let mut lab = Lab::with_leader(3, 30, &[3]);
    assert_eq!(lab.replicas[&3].applied_index(), 0);
    lab.tick(20, &[]);
    assert_eq!(lab.replicas[&3].applied_index(), lab.replicas[&1].applied_index());
    assert_eq!(lab.replicas[&3].state().rows(), lab.replicas[&1].state().rows());
    let disk = &lab.disks[&3];
    assert_eq!(disk.rows.clone().into_iter().collect::<Vec<_>>(), lab.replicas[&3].state().rows());
    Replica::new(config(3, 3), disk.recover()).unwrap();
}

#[test]
fn a_snapshot_that_was_lost_is_sent_again() {
    let mut lab = Lab::with_leader(3, 30, &[3]);
    // Replica 3 answers the leader, so the leader sends it snapshots; all of them are lost.
    for _ in 0..200 {
        lab.replicas.get_mut(&1).unwrap().tick();
        let mut flying = lab.drain(1);
        while let Some(message) = flying.pop() {
            if message.to == 3 && message.bytes.len() > 500 {
                continue;
            }
            lab.replicas.get_mut(&message.to).unwrap().step(&message.bytes).unwrap();
            flying.extend(lab.drain(message.to));
        }
    }
    assert_eq!(lab.replicas[&3].applied_index(), 0, "every snapshot was lost");
    lab.tick(60, &[]);
    assert_eq!(lab.replicas[&3].applied_index(), lab.replicas[&1].applied_index());
}

#[test]
fn damaged_logs_and_unsound_configurations_are_refused() {
    let lab = Lab::with_leader(1, 30, &[]);
    let refused = |spoil: fn(&mut Recovered)| {
        let mut recovered = lab.disks[&1].recover();
        spoil(&mut recovered);
        match Replica::new(config(1, 1), recovered) {
            Err(RecoverError::Log(why)) => why,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("accepted"),
        }
    };
    assert!(refused(|log| drop(log.entries.pop())).contains("entries were committed"));
    assert!(refused(|log| drop(log.entries.remove(1))).contains("follows entry"));
    assert!(refused(|log| log.entries[1].data[0] = 99).contains("not a valid message or command"));
    assert!(refused(|log| log.hard_state = HardState::default()).contains("it ends with entry"));
    assert!(refused(|log| log.applied_index = 1).contains("1 entries were applied"));
    assert!(refused(|log| log.applied_index += 1).contains("entries were applied"));

    let unsound = |spoil: fn(&mut Config)| {
        let mut config = config(1, 3);
        spoil(&mut config);
        matches!(Replica::new(config, Recovered::default()), Err(RecoverError::Config(_)))
    };
    assert!(unsound(|config| config.id = 4));
    assert!(unsound(|config| config.voters = vec![3, 1]));
    assert!(unsound(|config| config.voters = vec![0, 1]));
    assert!(unsound(|config| config.heartbeat_ticks = 5));
    assert!(!unsound(|config| config.id = 2));
}

/// Databases contain these bytes, and replicas of two builds exchange them. A new field with a default changes only the first digest. Any
/// other change needs a new version byte, and a reader for the previous version ([`lockstep_core::formats`]).
#[test]
fn the_format_of_log_entries_and_messages_is_frozen() {
    let lab = Lab::with_leader(3, 3, &[]);
    let digest = |parts: &mut dyn Iterator<Item = &Vec<u8>>| {
        let mut hasher = Domain::Blob.hasher();
        parts.for_each(|part| {
            hasher.update(part);
        });
        Digest::of(&hasher).to_hex()
    };
    assert_eq!(
        digest(&mut lab.disks[&1].entries.iter().map(|entry| &entry.data)),
        "592cc48b28d60dd7fd2c15ebcf9c1f2b6fa3a6a36e0cdca93b2f2ebc59ea17a3"
    );
    assert_eq!(
        digest(&mut lab.sent.iter().map(|message| &message.bytes)),
        "a839e896a2bc8314f7c858112b41ed1849f8562a1e68871e0111e6e4f5e4dada"
    );
}
