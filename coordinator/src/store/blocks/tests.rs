use lockstep_common::RunId;

use super::reader::PAGE_BYTES;
use super::*;

fn run(text: &str) -> RunId {
    text.parse().unwrap()
}

fn block(name: &str, byte: u8) -> Effect {
    Effect::AppendBlock { run: run(name), process: 0, bytes: vec![byte] }
}

#[test]
fn a_block_is_cut_by_the_smallest_rewind_that_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = ("aaaaaaaaaa", "bbbbbbbbbb");
    let effects = [
        (10, block(a, 1)),
        (12, block(b, 9)),
        (14, block(a, 2)),
        (17, Effect::Rewind { run: run(a), step: 20 }),
        (21, block(a, 3)),
        (25, Effect::Rewind { run: run(a), step: 30 }),
        (30, block(a, 4)),
    ];
    {
        let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
        database.write(&effects, true).unwrap();
        // A crash before the state database was written replays entries.
        database.write(&effects[4..], false).unwrap();
        database.write(&[], true).unwrap();
    }
    let reader = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap().reader();
    let cuts = |after| {
        let page = reader.page(&run(a), after).unwrap();
        page.blocks.into_iter().map(|block| (block.index, block.bytes[0], block.cut)).collect::<Vec<_>>()
    };
    assert_eq!(cuts(0), [(10, 1, Some(20)), (14, 2, Some(20)), (21, 3, Some(30)), (30, 4, None)]);
    assert_eq!(cuts(14), [(21, 3, Some(30)), (30, 4, None)]);
    assert_eq!(reader.page(&run(b), 0).unwrap().blocks[0].cut, None, "another run's rewinds are not its own");
    assert_eq!(reader.runs().unwrap(), [run(a), run(b)]);
    let (entries, more) = reader.entries(&run(a), 14).unwrap();
    assert!(!more);
    let block = |byte| Entry::Block(0, vec![byte]);
    let expected = [(17, Entry::Rewind(20)), (21, block(3)), (25, Entry::Rewind(30)), (30, block(4))];
    assert_eq!(entries, expected);
}

#[test]
fn a_report_that_is_not_as_it_was_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let name = "aaaaaaaaaa";
    let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
    let rewind = Effect::Rewind { run: run(name), step: 20 };
    database.write(&[(1, block(name, 1)), (2, rewind), (3, block(name, 2))], true).unwrap();
    let reader = database.reader();
    let refused = |change: &dyn Fn(&redb::WriteTransaction)| {
        let transaction = database.database.begin_write().unwrap();
        change(&transaction);
        transaction.commit().unwrap();
        let page = reader.page(&run(name), 0).unwrap_err().to_string();
        let entries = reader.entries(&run(name), 0).unwrap_err().to_string();
        assert!(page.contains("fails its checksum") && entries.contains("fails its checksum"));
        page
    };
    let of_block = |byte: u8, process| {
        move |transaction: &redb::WriteTransaction| {
            transaction.open_table(BLOCKS).unwrap().insert((name, 3), (process, &[byte][..])).unwrap();
        }
    };
    let words = "a report of run `aaaaaaaaaa` (log index 3) fails its checksum";
    assert!(refused(&of_block(3, 0)).contains(words));
    assert!(refused(&of_block(2, 1)).contains(words));
    let restored = refused(&|transaction| {
        of_block(2, 0)(transaction);
        transaction.open_table(REWINDS).unwrap().insert((name, 2), 21).unwrap();
    });
    assert!(restored.contains("log index 2"), "{restored}");
    let lost = refused(&|transaction| {
        transaction.open_table(REWINDS).unwrap().insert((name, 2), 20).unwrap();
        transaction.open_table(SUMS).unwrap().remove((name, 1, OF_BLOCK)).unwrap();
    });
    assert!(lost.contains("log index 1"), "{lost}");
}

#[test]
fn reports_that_an_earlier_build_kept_without_checksums_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let name = "aaaaaaaaaa";
    let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
    database.write(&[(4, block(name, 1)), (9, block(name, 2))], true).unwrap();
    // As version 0.1.0 wrote it: no checksums, and no first index of checksums.
    let transaction = database.database.begin_write().unwrap();
    transaction.delete_table(SUMS).unwrap();
    transaction.open_table(META).unwrap().retain(|_, _| false).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
    database.write(&[(10, block(name, 3))], true).unwrap();
    let bytes = |page: Page| page.blocks.iter().map(|block| block.bytes[0]).collect::<Vec<_>>();
    assert_eq!(bytes(database.reader().page(&run(name), 0).unwrap()), [1, 2, 3]);
    let transaction = database.database.begin_write().unwrap();
    transaction.open_table(SUMS).unwrap().remove((name, 10, OF_BLOCK)).unwrap();
    transaction.commit().unwrap();
    assert!(database.reader().page(&run(name), 0).is_err());
}

#[test]
fn pages_are_bounded_and_follow_each_other_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = BlockDatabase::open(dir.path(), 0..=u64::MAX).unwrap();
    let name = "aaaaaaaaaa";
    let effects: Vec<_> = (1..=5)
        .map(|index| {
            (index, Effect::AppendBlock { run: run(name), process: 1, bytes: vec![index as u8; PAGE_BYTES / 2] })
        })
        .collect();
    database.write(&effects, true).unwrap();
    let (mut seen, mut after, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = database.reader().page(&run(name), after).unwrap();
        assert!(page.blocks.iter().map(|block| block.bytes.len()).sum::<usize>() <= PAGE_BYTES * 3 / 2);
        seen.extend(page.blocks.iter().map(|block| block.index));
        after = seen.last().copied().unwrap();
        pages += 1;
        if !page.more {
            break;
        }
    }
    assert_eq!((seen, pages), (vec![1, 2, 3, 4, 5], 3));

    database.write(&[(6, Effect::Rewind { run: run(name), step: 0 })], true).unwrap();
    let (mut seen, mut after, mut more) = (Vec::new(), 0, true);
    while more {
        let entries;
        (entries, more) = database.reader().entries(&run(name), after).unwrap();
        seen.extend(entries.iter().map(|(index, _)| *index));
        after = seen.last().copied().unwrap();
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6], "the rewind is in the order of the log");
}
