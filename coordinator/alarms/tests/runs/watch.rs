//! A watch is a function of what it was fed: it can be saved and gone on with, and a rollback leaves nothing of what came after.

use crate::generate::{Chance, Curve, Fed, LAYERS, Shape, feed_layers, feed_phases, weight};
use lockstep_alarms::{Alarm, Kind, Severity, Watch};
use lockstep_common::series::{Histogram, Point, SeriesKey};

/// Feeds the steps after `from` up to `to`; one above `breaks` has a loss and gradients that explode.
fn feed(fed: &mut Fed, curve: &Curve, from: u64, to: u64, breaks: u64) {
    for step in from + 1..=to {
        let mut chance = Chance::new(step);
        let now = curve.at(step, &mut chance);
        let worse = 1.2_f64.powf(step.saturating_sub(breaks) as f64).min(1e6);
        fed.point("loss", step, now.loss * worse);
        fed.point("grad_norm", step, now.norm * worse);
        fed.point("lr", step, now.rate);
        let norms: Vec<f64> = (0..LAYERS).map(|layer| curve.norm_of(layer, now.common, &mut chance) * worse).collect();
        if step % 5 == 0 {
            feed_layers(fed, step, now.rate, &norms, &mut chance);
        }
        for process in 0..2 {
            feed_phases(fed, step, process, 1.0, 1.0, &mut chance);
        }
        fed.part("process/rss_bytes", 0, step, 1e9);
        fed.point("my own/number", step, f64::NAN);
    }
}

fn curve() -> Curve {
    Curve::new(Shape::Exponential, 2000, &mut Chance::new(5))
}

#[test]
fn a_saved_watch_goes_on_as_if_it_had_not_been_saved() {
    let curve = curve();
    let mut fed = Fed::new();
    feed(&mut fed, &curve, 0, 700, 650);
    let bytes = postcard::to_allocvec(&fed.0).unwrap();
    let mut binary = Fed(postcard::from_bytes(&bytes).unwrap());
    let text = serde_json::to_string(&fed.0).unwrap();
    let mut textual = Fed(serde_json::from_str::<Watch>(&text).unwrap());
    for fed in [&mut fed, &mut binary, &mut textual] {
        feed(fed, &curve, 700, 900, 650);
    }
    assert!(fed.alarms().iter().any(|alarm| alarm.kind == Kind::Divergence), "{:?}", fed.alarms());
    assert_eq!(postcard::to_allocvec(&fed.0).unwrap(), postcard::to_allocvec(&binary.0).unwrap());
    assert_eq!(fed.alarms(), binary.alarms());
    assert_eq!(fed.alarms(), textual.alarms());
}

#[test]
fn where_a_number_that_is_none_began_is_as_the_run_says() {
    for (tensor, part, place, words) in [
        ("activation/001.mul", Some(1), "layer `001.mul`, rank 1", "the output of module `001.mul`, in rank 1."),
        ("grad/l1.bias", Some(1), "layer `l1.bias`, rank 1", "the gradient of `l1.bias`, in rank 1."),
        ("weight/l1.bias", None, "layer `l1.bias`", "the weight `l1.bias`."),
        ("buffer/norm.mean", None, "layer `norm.mean`", "the buffer `norm.mean`."),
        ("inputs", Some(1), "the batch's inputs, rank 1", "the batch's inputs, in rank 1."),
        ("loss", Some(0), "the loss itself, rank 0", "the loss itself, in rank 0."),
    ] {
        // What was evaluated, two steps before, or nothing: the place is that of the step that was made again.
        for earlier in [true, false] {
            let mut fed = Fed::new();
            feed(&mut fed, &curve(), 0, 100, 650);
            if earlier {
                fed.point("eval/loss", 99, f64::INFINITY);
            }
            let nan = Histogram { step: 101, count: 9, nans: 9, ..Histogram::default() };
            fed.0.histogram(&SeriesKey::whole("activation/000.linear"), &nan);
            fed.point("loss", 101, f64::NAN);
            fed.part("rank/grad_norm", 0, 101, f64::NAN);
            // Each process says it; it counts once.
            for _ in 0..2 {
                let key = SeriesKey { name: format!("not_finite/{tensor}"), part };
                fed.0.point(&key, &Point { step: 101, at_ms: 1, value: 3.0 });
            }
            let [alarm] = &fed.alarms()[..] else { panic!("{:?}", fed.alarms()) };
            let since = if earlier { 99 } else { 101 };
            assert_eq!((alarm.kind, alarm.since_step, alarm.place.as_deref()), (Kind::NotFinite, since, Some(place)));
            assert!(alarm.what.ends_with(&format!("The first non-finite tensor is {words}")), "{}", alarm.what);
        }
    }
    // A number of a user's own, and none that was not finite.
    for name in ["not_finite/count", "not_finite/inputs"] {
        let mut fed = Fed::new();
        feed(&mut fed, &curve(), 0, 100, 650);
        fed.point(name, 100, 0.0);
        assert_eq!(fed.alarms(), []);
    }
}

#[test]
fn a_rollback_takes_alarms_and_histories_with_it() {
    let curve = curve();
    let mut fed = Fed::new();
    feed(&mut fed, &curve, 0, 700, 650);
    fed.point("loss", 701, f64::NAN);
    fed.point("grad_norm", 701, f64::INFINITY);
    let kinds: Vec<Kind> = fed.alarms().iter().map(|alarm| alarm.kind).collect();
    assert_eq!(kinds, [Kind::Divergence, Kind::NotFinite]);
    fed.0.rewind(700);
    assert_eq!(fed.alarms().iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [Kind::Divergence]);
    fed.0.rewind(600);
    assert_eq!(fed.alarms(), []);
    // The same steps again, healthy this time, and then broken as before.
    feed(&mut fed, &curve, 600, 1000, 1000);
    assert_eq!(fed.alarms(), []);
    feed(&mut fed, &curve, 1000, 1100, 1000);
    let said = fed.alarms();
    assert!(matches!(&said[..], [Alarm { kind: Kind::Divergence, severity: Severity::Error, .. }]), "{said:?}");
    assert!(
        said[0].since_step.abs_diff(1010) < 25 && said[0].since_ms == crate::generate::ms(said[0].since_step),
        "{said:?}"
    );
}

#[test]
fn an_alarm_that_ended_after_the_step_stands_again() {
    let mut fed = Fed::new();
    let feed = |fed: &mut Fed, from: u64, to: u64, slow: f64| {
        let mut chance = Chance::new(from);
        for step in from + 1..=to {
            feed_phases(fed, step, 0, 1.0, 1.0, &mut chance);
            feed_phases(fed, step, 1, 1.0, slow, &mut chance);
        }
    };
    feed(&mut fed, 0, 300, 2.0);
    feed(&mut fed, 300, 600, 1.0);
    let ended = fed.alarms()[0].until_step.unwrap();
    assert!(ended.abs_diff(300) < 20, "{ended}");
    fed.0.rewind(290);
    assert_eq!(fed.alarms()[0].until_step, None);
}

#[test]
fn the_first_activation_is_named_before_gradients() {
    let mut fed = Fed::new();
    fed.0.layers(&["stem.weight".into(), "mid.weight".into(), "head.weight".into()]);
    let bad = |step| Histogram { step, count: 64, nans: 1, ..Histogram::default() };
    for name in ["grad/stem.weight", "activation/head", "activation/mid"] {
        fed.0.histogram(&SeriesKey::whole(name), &bad(40));
    }
    // One step later all are.
    fed.0.histogram(&SeriesKey::whole("activation/stem"), &bad(41));
    let said = fed.alarms();
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].place.as_deref(), said[0].since_step), (Some("layer `mid`"), 40));
    // A series that lags tells of an earlier step.
    fed.point("loss", 39, f64::NAN);
    assert_eq!((fed.alarms()[0].since_step, fed.alarms()[0].series.name.as_str()), (39, "loss"));
    // In JSON it reads as the page wants it.
    let json = serde_json::to_value(&said[0]).unwrap();
    assert_eq!((&json["kind"], &json["severity"]), (&"not_finite".into(), &"error".into()));
    assert!(json["try"].is_array() && json["until_step"].is_null());
}

#[test]
fn the_state_of_two_hundred_series_is_bounded() {
    let mut fed = Fed::new();
    let mut chance = Chance::new(3);
    for step in 1..=20_000 {
        for name in ["loss", "grad_norm", "lr"] {
            fed.point(name, step, 1.0 + chance.even());
        }
        if step % 10 == 0 {
            for layer in 0..52 {
                for family in ["grad_norm", "weight_norm", "update_ratio"] {
                    fed.point(&format!("{family}/{}", weight(layer)), step, chance.even());
                }
            }
            for process in 0..4 {
                for name in ["process/rss_bytes", "device/allocated_bytes", "device/reserved_bytes"] {
                    fed.part(name, process, step, 1e9);
                }
            }
        }
        for process in 0..4 {
            feed_phases(&mut fed, step, process, 1.0, 1.0, &mut chance);
        }
    }
    let bytes = postcard::to_allocvec(&fed.0).unwrap().len();
    println!("199 series: {bytes} bytes");
    assert!(bytes < 200_000, "{bytes}");
}

#[test]
fn a_process_of_which_one_phase_is_heard_a_moment_later_does_not_seem_fast() {
    let mut fed = Fed::new();
    for step in 1..=400 {
        let mut say = |process, phases: &[(&str, f64)]| {
            for (phase, millis) in phases {
                fed.part(&format!("phase/{phase}"), process, step, millis * 1e-3);
            }
        };
        // Process 0 begins; from then on process 1 speaks first, but for its longest phase, which comes last.
        let (first, second) =
            ([("data", 0.1), ("forward", 6.0), ("backward", 0.4)], [("data", 0.1), ("backward", 0.4)]);
        if step == 1 {
            say(0, &first);
            say(1, &second);
        } else {
            say(1, &second);
            say(0, &first);
        }
        say(1, &[("forward", 6.0)]);
        assert_eq!(fed.alarms(), [], "step {step}");
    }
}
