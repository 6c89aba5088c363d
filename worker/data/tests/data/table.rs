//! CSV tables: columns by name, standardised by their training rows or by a checkpoint.

use super::*;

#[test]
fn csv_tables_are_standardised_by_their_training_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::from("a,label, b ,constant\n");
    for row in 0..40 {
        writeln!(text, "{row}, {} ,{},5", row % 3, 1e3 - f64::from(row) / 4.0).unwrap();
    }
    fs::write(dir.path().join("t.csv"), text).unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "label", validation = 0.25 }"#;
    let sets = open(MLP3, job, dir.path()).unwrap();
    let validation = sets.validation.unwrap();
    assert_eq!((sets.train.len(), validation.len()), (30, 10));
    let expected = SampleShape { input: vec![3], kind: InputKind::Float, targets: Targets::Classes { count: 3 } };
    assert_eq!(sets.train.shape(), &expected);
    let rows = everything(sets.train.as_ref());
    for column in 0..2 {
        let mean = rows.iter().map(|(inputs, _)| inputs[column]).sum::<f64>() / 30.0;
        let square = rows.iter().map(|(inputs, _)| inputs[column].powi(2)).sum::<f64>() / 30.0;
        assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-5, "{column}: {mean} {square}");
    }
    // The third column is constant, the second falls as the first rises, and labels stay with their rows.
    let all: Vec<_> = rows.into_iter().chain(everything(validation.as_ref())).collect();
    assert!(all.iter().all(|(inputs, _)| inputs[2] == 0.0 && (inputs[0] + inputs[1]).abs() < 1e-5));
    let mut sorted = all;
    sorted.sort_by(|(a, _), (b, _)| a[0].total_cmp(&b[0]));
    assert!(sorted.iter().enumerate().all(|(row, (_, label))| label[0] == (row % 3) as f64));

    let job = r#"{ kind = "csv", path = "t.csv", target = "a", task = "regression" }"#;
    let sets = open(REGRESSION, job, dir.path()).unwrap();
    assert_eq!(sets.train.shape().targets, Targets::Values { count: 1 });
    let targets = read(sets.train.as_ref(), &(0..40).collect::<Vec<_>>()).1;
    assert!(targets.windows(2).all(|pair| pair[0] < pair[1]) && targets.iter().sum::<f64>().abs() < 1e-5);
    assert_eq!(sets.train.batch(&[3], Device::Cpu).unwrap().targets.size(), [1, 1]);
}

#[test]
fn bad_csv_tables_are_refused_with_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "y" }"#;
    let with = |text: &[u8]| {
        fs::write(dir.path().join("t.csv"), text).unwrap();
        refused(MLP3, job, dir.path())
    };
    assert_eq!(
        with(b"x,y\n1,2\n\n2.5,1\nabc,1\n"),
        "data file `t.csv`, line 5, column `x`: `abc` is not a finite number"
    );
    assert!(with(b"x,y\n1,2\n,1\n").contains("line 3, column `x`: the cell is empty: it needs a finite number"));
    assert!(with(b"x,y\nnan,2\n").contains("`nan` is not a finite number"));
    assert!(with(b"x,y\n1e999,2\n").contains("`1e999` is not a finite number"));
    assert!(with(b"x,y\n\xff\xfe,2\n").contains("line 2, column `x`"));
    assert!(with(b"x,y\n1,1.5\n").contains("line 2, column `y`: `1.5` is not a class (a whole number from 0)"));
    assert!(with(b"x,y\n1,-1\n").contains("`-1` is not a class (a whole number from 0)"));
    assert!(with(b"x,y\n1,blue\n").contains("column `y`: `blue` is not a class (a whole number from 0)"));
    assert!(with(b"x,y\n1,\n").contains("column `y`: the cell is empty: it needs a class (a whole number from 0)"));
    assert!(with(b"x,y\n,1\n").contains("column `x`: the cell is empty: it needs a finite number"));
    assert_eq!(with(b"x,y\n1,2\n1\n"), "data file `t.csv`, line 3 has 1 cells, but the header has 2");
    assert_eq!(with(b"x,y\n1,2,3\n"), "data file `t.csv`, line 2 has 3 cells, but the header has 2");
    assert_eq!(with(b"x,z\n1,2\n"), "data file `t.csv` has no column `y`; it has `x`, `z`");
    assert_eq!(with(b"x,y\n"), "data file `t.csv` holds no samples");
    assert_eq!(with(b""), "data file `t.csv` holds no samples");
    assert_eq!(
        with(b"x,y\n\"1\",\"2\"\n1,\"1"),
        "data file `t.csv` is not a whole CSV table: the quoted cell at the end of line 3 is not closed: the file was cut off"
    );
    assert!(with(b"y\n1\n").ends_with("the target is its only column"));
    assert!(
        with(b"x,y\n1,0\n1,3\n").contains("label 3 at position 1 is not a class from 0 to 2 (`model.outputs` = 3)")
    );
    let few = r#"{ kind = "csv", path = "t.csv", target = "y", validation = 0.1 }"#;
    fs::write(dir.path().join("t.csv"), "x,y\n1,2\n").unwrap();
    assert!(
        refused(MLP3, few, dir.path()).ends_with("has 1 samples: `data.validation` = 0.1 leaves none for validation")
    );
}

#[test]
fn a_column_that_is_constant_up_to_rounding_is_not_divided_by_rounding() {
    let dir = tempfile::tempdir().unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "label", validation = 0.2 }"#;
    let mut text = String::from("price,x,label\n");
    for row in 0..50 {
        writeln!(text, "{},{row},{}", if row == 7 { 0.2 } else { 0.1 }, row % 2).unwrap();
    }
    fs::write(dir.path().join("t.csv"), text).unwrap();
    // Row 7 is one of the validation rows of this seed, so that all training prices are 0.1.
    let sets = support::open_seeded(MLP3, job, dir.path(), 2).unwrap();
    let train = everything(sets.train.as_ref());
    assert!(train.iter().all(|(inputs, _)| inputs[0] == 0.0), "{:?}", train[0]);
    let mut prices: Vec<f64> = everything(sets.validation.unwrap().as_ref()).iter().map(|(row, _)| row[0]).collect();
    prices.sort_by(f64::total_cmp);
    assert_eq!((prices[8], prices[9]), (0.0, f64::from(0.1_f32)), "the odd price is not scaled");
}

#[test]
fn numbers_that_cannot_be_standardised_are_refused_by_line_column_and_value() {
    let dir = tempfile::tempdir().unwrap();
    let with = |text: &str, target: &str| {
        fs::write(dir.path().join("t.csv"), text).unwrap();
        let job = format!(r#"{{ kind = "csv", path = "t.csv", target = "{target}", task = "regression" }}"#);
        refused(REGRESSION, &job, dir.path())
    };
    assert_eq!(
        with("x,y\n1,2\n\n-1e308,3\n-1e308,4\n2,1\n", "y"),
        "data file `t.csv`, line 4, column `x`: -1e308 cannot be standardised: the sum of the column's training values \
         is not a finite 64-bit number; scale the column, or leave it out"
    );
    assert!(
        with("x,y\n1,2\n1e200,3\n", "y").contains("line 3, column `x`: 1e200 cannot be standardised: the variance")
    );
    assert!(
        with("x,y\n1,2\n1e200,3\n", "x").contains("line 3, column `x`: 1e200 cannot be standardised: the variance")
    );
    assert!(
        with("x,y\n0,2\n1e-200,3\n", "y").contains("line 3, column `x`: 1e-200 cannot be standardised: the squares")
    );
    // The moments are finite, but a validation row is 1e150 deviations from the mean.
    let mut text = String::from("x,y\n");
    for row in 0..50 {
        writeln!(text, "{},{row}", if row == 7 { 1e150 } else { 0.1 }).unwrap();
    }
    fs::write(dir.path().join("t.csv"), text).unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "y", task = "regression", validation = 0.2 }"#;
    let said = support::open_seeded(REGRESSION, job, dir.path(), 2).map(|_| ()).unwrap_err();
    assert!(said.contains("line 9, column `x`: 1e150 cannot be standardised: the standardised value is not"), "{said}");
}

#[test]
fn a_name_that_stands_twice_in_the_header_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "y" }"#;
    for (header, name) in [("x,y,y", "y"), ("x,x,y", "x"), ("y,z, y ", "y"), ("\"a b\",y,a b", "a b")] {
        fs::write(dir.path().join("t.csv"), format!("{header}\n1,2,2\n")).unwrap();
        assert_eq!(
            refused(MLP3, job, dir.path()),
            format!("data file `t.csv` has two columns `{name}`: rename one, or remove it")
        );
    }
    fs::write(dir.path().join("t.csv"), "y,Y,x\n1,2,2\n").unwrap();
    assert!(open(MLP3, job, dir.path()).is_ok());
}

#[test]
fn a_checkpoints_moments_take_the_place_of_a_tables_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.csv"), "a,b,y\n1,5,10\n3,5,30\n").unwrap();
    let spec = r#"{ kind = "csv", path = "t.csv", target = "y", task = "regression" }"#;
    let own = open(REGRESSION, spec, dir.path()).unwrap().train;
    let column =
        |name: &str, mean, deviation, constant| Standardised { column: name.into(), mean, deviation, constant };
    let preprocessing = Preprocessing {
        inputs: Inputs::Columns(vec![column("a", 2.0, 1.0, false), column("b", 5.0, 1.0, true)]),
        targets: preprocessing::Targets::Standardised(column("y", 20.0, 10.0, false)),
    };
    assert_eq!((own.preprocessing(), own.measured()), (Some(&preprocessing), Some(&preprocessing)));
    assert_eq!(everything(own.as_ref()), [(vec![-1.0, 0.0], vec![-1.0]), (vec![1.0, 0.0], vec![1.0])]);

    let read = |known: &Preprocessing| {
        let job = support::job(REGRESSION, spec, &[]);
        lockstep_data::open_data_as(&job, &dir.path().into(), Some(known)).unwrap().train
    };
    let known = Preprocessing {
        inputs: Inputs::Columns(vec![column("a", 1.0, 4.0, false), column("b", 3.0, 0.5, false)]),
        targets: preprocessing::Targets::Standardised(column("y", 0.0, 20.0, false)),
    };
    let data = read(&known);
    assert_eq!((data.preprocessing(), data.measured()), (Some(&known), Some(&preprocessing)));
    assert_eq!(everything(data.as_ref()), [(vec![0.0, 4.0], vec![0.5]), (vec![0.5, 4.0], vec![1.5])]);
    // Moments of other columns are not used, and a resume sees that the preprocessing differs.
    let other = Preprocessing { inputs: Inputs::Columns(vec![column("b", 1.0, 4.0, false)]), ..known };
    let data = read(&other);
    assert!(!other.fits(data.measured().unwrap()) && data.preprocessing() != Some(&other));
}
