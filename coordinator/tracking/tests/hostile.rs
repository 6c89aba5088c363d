//! Blocks with any numbers in them, and questions with any: nothing panics, and what was sound before stays.

use lockstep_common::RunId;
use lockstep_common::series::SeriesKey;
use lockstep_rpc::{
    BlobRef, BlockHeader, DeviceReport, EncodedBlock, EvalReport, HistogramReport, LayerReport, MediaReport,
    ModelReport, ParameterReport, ReportBlock, Series, StepReport, SystemReport, decode_block,
};
use lockstep_tracking::{Event, Query, Writer};
use proptest::collection::vec;
use proptest::prelude::*;

fn whole() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(2),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(1 << 63),
        0..5_000_u64,
        any::<u64>()
    ]
}

fn signed() -> impl Strategy<Value = i64> {
    whole().prop_map(u64::cast_signed)
}

fn real() -> impl Strategy<Value = f64> {
    prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(-0.0), any::<f64>()]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("loss"),
        Just("grad_norm"),
        Just("eval/loss"),
        Just("rank/grad_norm"),
        Just("process/rss_bytes"),
        Just("weight/a"),
        Just("grad/a"),
        Just("activation/a"),
        Just("a"),
        Just("")
    ]
    .prop_map(str::to_owned)
}

fn series() -> impl Strategy<Value = Series> {
    let part = proptest::option::of(prop_oneof![Just(0), Just(u32::MAX), 0..3_u32]);
    (name(), part, vec(whole(), 0..20), vec(signed(), 0..20), vec(real(), 0..20))
        .prop_map(|(name, part, steps, at_ms, values)| Series { name, part, steps, at_ms, values })
}

fn histogram() -> impl Strategy<Value = HistogramReport> {
    (name(), vec(whole(), 6), vec(real(), 4), vec(any::<u32>(), 0..5), vec(whole(), 0..5)).prop_map(
        |(name, whole, real, bins, counts)| HistogramReport {
            name,
            step: whole[0],
            at_ms: whole[1],
            count: whole[2],
            zeros: whole[3],
            nans: whole[4],
            infs: whole[5],
            min: real[0],
            max: real[1],
            mean: real[2],
            std: real[3],
            bins,
            counts,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<StepReport>> {
    vec((whole(), real(), whole(), whole()), 0..5).prop_map(|all| {
        let step = |(step, loss, micros, at_ms): (u64, f64, u64, u64)| StepReport {
            step,
            loss: loss.to_bits(),
            grad_norm: loss.to_bits(),
            micros,
            at_ms,
            ..StepReport::default()
        };
        all.into_iter().map(step).collect()
    })
}

fn block() -> impl Strategy<Value = ReportBlock> {
    let rest = (vec(whole(), 12), vec(real(), 6), vec(signed(), 0..4));
    (steps(), vec(series(), 0..4), vec(histogram(), 0..3), name(), rest).prop_map(
        |(steps, series, histograms, name, (whole, real, shape))| ReportBlock {
            process: whole[0] as u32,
            steps,
            series,
            histograms,
            dropped: whole[1],
            layers: vec![LayerReport {
                step: whole[2],
                names: vec![name.clone()],
                grad_norms: vec![real[0]],
                weight_norms: vec![real[1], real[2]],
                update_norms: vec![real[3]],
                at_ms: whole[3],
            }],
            evals: vec![EvalReport { step: whole[4], loss: real[4], accuracy: Some(real[5]), ..EvalReport::default() }],
            systems: vec![SystemReport {
                step: whole[5],
                at_ms: whole[6],
                rss_bytes: whole[7],
                device: Some(DeviceReport { allocated_bytes: whole[8], ..DeviceReport::default() }),
                ..SystemReport::default()
            }],
            media: vec![MediaReport {
                name: name.clone(),
                step: whole[9],
                at_ms: whole[10],
                kind: name.clone(),
                blob: Some(BlobRef { digest: vec![0; (whole[11] % 40) as usize], bytes: whole[11] }),
                ..MediaReport::default()
            }],
            model: Some(ModelReport {
                kind: name.clone(),
                parameters: vec![ParameterReport { name, shape, trainable: true }],
            }),
            ..ReportBlock::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_a_process_has_bent_panic_nowhere_and_what_is_left_out_is_named(
        block in block(),
        bent in vec((any::<u16>(), any::<u8>()), 0..6),
        header in (whole(), whole(), whole(), whole()),
        lies in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, tracking) = Writer::open(&dir.path().join("tracking.redb")).unwrap();
        let run: RunId = "aaaaaaaaaa".parse().unwrap();
        let mut encoded = EncodedBlock::of(block);
        if lies {
            let (first_step, last_step, reach, micros) = header;
            encoded.header = Some(BlockHeader { first_step, last_step, reach, micros, ..BlockHeader::default() });
        }
        let mut bytes = encoded.into_stored();
        for (at, with) in bent {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= with;
        }
        let (event, unsound) = match decode_block(0, &bytes) {
            Ok(decoded) => (Event::Block(Box::new(decoded.block)), false),
            Err(unsound) => (Event::Unsound(unsound), true),
        };
        writer.take(&run, 1, event).unwrap();
        let named = tracking.alarms(&run).unwrap().iter().any(|alarm| alarm.what.starts_with("`a block of reports` of step"));
        prop_assert!(named || !unsound);
        prop_assert_eq!(writer.cursor(&run).unwrap(), 1);
    }

    #[test]
    fn nothing_that_a_block_holds_and_nobody_who_asks_panics(
        events in vec((block(), proptest::option::weighted(0.2, whole())), 1..8),
        (branch, from, to, pixels) in (prop_oneof![Just(0), Just(1), Just(u32::MAX)], whole(), whole(), whole()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, tracking) = Writer::open(&dir.path().join("tracking.redb")).unwrap();
        let run: RunId = "aaaaaaaaaa".parse().unwrap();
        let mut index = 0;
        for (block, rewind) in events {
            index += 1;
            writer.take(&run, index, Event::Block(Box::new(block))).unwrap();
            if let Some(step) = rewind {
                index += 1;
                writer.take(&run, index, Event::Rewind(step)).unwrap();
            }
        }
        for written in [false, true] {
            if written {
                writer.flush().unwrap();
            }
            for branch in [0, branch] {
                let query = Query { branch, from, to, pixels: pixels as usize };
                for key in tracking.series(&run, branch).unwrap().into_keys().chain([SeriesKey::whole("none")]) {
                    tracking.curve(&run, &key, &query).unwrap();
                }
            }
            for name in tracking.histogram_names(&run).unwrap() {
                tracking.histograms(&run, &name).unwrap().iter().for_each(|histogram| drop(histogram.bars(3)));
            }
            tracking.media(&run).unwrap();
            tracking.model(&run).unwrap();
            tracking.alarms(&run).unwrap();
            tracking.branches(&run).unwrap();
            tracking.dropped(&run).unwrap();
        }
        // What comes after it is taken.
        let series = vec![Series { name: "mine".into(), part: None, steps: vec![1], at_ms: vec![1], values: vec![2.5] }];
        writer.take(&run, index + 1, Event::Block(Box::new(ReportBlock { series, ..ReportBlock::default() }))).unwrap();
        let all = Query { branch: 0, from: 0, to: u64::MAX, pixels: 100 };
        let curve = tracking.curve(&run, &SeriesKey::whole("mine"), &all).unwrap().unwrap();
        prop_assert_eq!(curve.values, [2.5]);
    }
}
