//! Gradient hooks are called once per backward pass, with the whole gradient, before the pass ends; and not after they are dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lockstep_tch_ext::hooks::on_grad;
use lockstep_tch_ext::{Error, fold};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn leaf(value: f64) -> Tensor {
    Tensor::full([2], value, FLOAT).set_requires_grad(true)
}

#[test]
fn hooks_see_whole_gradients_from_the_last_layer_to_the_first() {
    let (first, second) = (leaf(2.0), leaf(3.0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = |name: &'static str| {
        let seen = Arc::clone(&seen);
        Box::new(move |grad: &Tensor| {
            seen.lock().unwrap().push((name, Vec::<f32>::try_from(grad).unwrap()));
        })
    };
    let hooks = [on_grad(&first, record("first")).unwrap(), on_grad(&second, record("second")).unwrap()];
    // `first` is used twice: its gradient is a sum, and the hook gets only the sum.
    let loss = || (&first * &first * &second).sum(Kind::Float);
    let expected = [("second", vec![4.0; 2]), ("first", vec![12.0; 2])];

    loss().backward();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);
    // The same if gradients are returned instead of accumulated.
    let flat = Tensor::zeros([4], FLOAT);
    let params = [first.shallow_clone(), second.shallow_clone()];
    fold::grads_into(&loss(), &params, &flat, &mut [0; 2]).unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);
    assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), [12.0, 12.0, 4.0, 4.0]);

    let [hook, kept] = hooks;
    drop(hook);
    loss().backward();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), [("second", vec![4.0; 2])]);
    drop(kept);
    loss().backward();
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn what_a_callback_owns_goes_with_its_hook() {
    let owned = Arc::new(());
    let tensor = leaf(1.0);
    let held = Arc::clone(&owned);
    let hook = on_grad(&tensor, Box::new(move |_| assert_eq!(Arc::strong_count(&held), 2))).unwrap();
    tensor.sum(Kind::Float).backward();
    drop(hook);
    assert_eq!(Arc::strong_count(&owned), 1);

    // The hook is rejected, and its callback is freed all the same.
    let held = Arc::clone(&owned);
    let constant = Tensor::ones([2], FLOAT);
    let refused = on_grad(&constant, Box::new(move |_| drop(Arc::clone(&held))));
    assert!(matches!(refused, Err(Error::Torch(_))));
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn a_panic_ends_the_backward_pass_with_its_words() {
    let tensor = leaf(1.0);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let hook = on_grad(
        &tensor,
        Box::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("no room for bucket {}", 7);
        }),
    )
    .unwrap();
    let flat = Tensor::zeros([2], FLOAT);
    let params = [tensor.shallow_clone()];
    let run = || fold::grads_into(&tensor.sum(Kind::Float), &params, &flat, &mut [0]);
    match run() {
        Err(Error::Torch(message)) => assert!(message.contains("no room for bucket 7"), "{message}"),
        other => panic!("{other:?}"),
    }
    // Later passes fail, too, and do not call the callback, whose state may be broken.
    assert!(run().is_err());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    drop(hook);
    run().unwrap();
    assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), [1.0, 1.0]);
}
