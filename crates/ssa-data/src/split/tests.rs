use proptest::prelude::*;

use super::*;

fn documents(texts: &[Vec<u8>]) -> Vec<Document> {
    let named = |(index, text): (usize, &Vec<u8>)| Document {
        name: format!("d{index}"),
        text: text.clone(),
    };
    texts.iter().enumerate().map(named).collect()
}

fn of_lengths(lengths: &[usize]) -> Vec<Document> {
    documents(&lengths.iter().map(|&length| vec![b'x'; length]).collect::<Vec<_>>())
}

fn names(documents: &[Document]) -> Vec<&str> {
    documents.iter().map(|document| document.name.as_str()).collect()
}

fn texts(counts: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), counts)
}

proptest! {
    #[test]
    fn whole_documents_are_a_partition(
        texts in texts(20..40),
        filler in prop::collection::vec(1_usize..60, 10),
        fraction in 0.001..0.999,
        seed: u64,
    ) {
        let mut all = documents(&texts);
        all.extend(of_lengths(&filler));
        let parts = split(all.clone(), fraction, seed).unwrap();
        prop_assert!(text_bytes(&parts.train) > 0 && text_bytes(&parts.held_out) > 0);
        // Merging the parts in corpus order gives the corpus: nothing is lost or repeated.
        let [mut train, mut held_out] =
            [&parts.train, &parts.held_out].map(|part| part.iter().peekable());
        for document in &all {
            let found = train.next_if_eq(&document).or_else(|| held_out.next_if_eq(&document));
            prop_assert_eq!(found, Some(document));
        }
        prop_assert!(train.next().is_none() && held_out.next().is_none());
        // At most twice the wanted bytes, unless the smallest document alone exceeds that.
        let wanted = (fraction * text_bytes(&all) as f64).round().max(1.0);
        let held_out = text_bytes(&parts.held_out) as f64;
        prop_assert!(parts.held_out.len() == 1 || held_out <= 2.0 * wanted);
        prop_assert_eq!(split(all, fraction, seed).unwrap(), parts);
    }

    #[test]
    fn tails_are_a_partition(texts in texts(1..10), fraction in 0.001..0.999, seed: u64) {
        let all = documents(&texts);
        prop_assume!(texts.iter().any(|text| text.len() >= 2));
        let parts = split(all.clone(), fraction, seed).unwrap();
        prop_assert_eq!(names(&parts.train), names(&all));
        let mut tails = parts.held_out.iter();
        for (head, whole) in parts.train.iter().zip(&all) {
            let mut joined = head.text.clone();
            if whole.text.len() >= 2 {
                let tail = tails.next().unwrap();
                prop_assert_eq!(&tail.name, &format!("{}#held-out", whole.name));
                prop_assert!(!head.text.is_empty() && !tail.text.is_empty());
                let wanted = whole.text.len() as f64 * fraction;
                prop_assert!((tail.text.len() as f64 - wanted).abs() <= 4.0);
                joined.extend(&tail.text);
            }
            prop_assert_eq!(&joined, &whole.text);
        }
        prop_assert!(tails.next().is_none());
    }
}

#[test]
fn the_number_of_documents_with_text_decides() {
    let nine =
        split(of_lengths(&[100, 100, 100, 100, 100, 100, 100, 100, 100, 0, 0]), 0.1, 0).unwrap();
    assert_eq!((nine.train.len(), nine.held_out.len()), (11, 9));
    let ten = split(of_lengths(&[100; 10]), 0.1, 0).unwrap();
    assert_eq!((ten.train.len(), ten.held_out.len()), (9, 1));
}

#[test]
fn the_fraction_is_reached_and_the_seed_chooses() {
    let split_with = |seed| split(of_lengths(&[10; 100]), 0.25, seed).unwrap();
    assert_eq!(text_bytes(&split_with(1).held_out), 250);
    assert_eq!(split_with(1), split_with(1));
    assert_ne!(split_with(1), split_with(2));
}

#[test]
fn a_huge_document_is_not_held_out() {
    for seed in 0..20 {
        let mut lengths = [10; 20];
        lengths[7] = 10_000;
        let parts = split(of_lengths(&lengths), 0.01, seed).unwrap();
        assert!(text_bytes(&parts.held_out) <= 2 * 102, "{:?}", names(&parts.held_out));
    }
}

#[test]
fn one_document_is_held_out_at_least_and_one_trained_on() {
    let smallest = split(of_lengths(&[50, 50, 50, 40, 50, 50, 50, 50, 50, 50]), 1e-6, 3).unwrap();
    assert_eq!(names(&smallest.held_out), ["d3"]);
    let most = split(of_lengths(&[5; 10]), 0.999, 3).unwrap();
    assert_eq!((most.train.len(), most.held_out.len()), (1, 9));
}

#[test]
fn characters_are_not_cut() {
    for fraction in [0.1, 0.3, 0.5, 0.62, 0.9] {
        let parts = split(documents(&["aé€😀z".repeat(9).into_bytes()]), fraction, 0).unwrap();
        std::str::from_utf8(&parts.train[0].text).unwrap();
        std::str::from_utf8(&parts.held_out[0].text).unwrap();
    }
    // A single character can only be cut.
    let parts = split(documents(&["é".into()]), 0.5, 0).unwrap();
    assert_eq!((parts.train[0].text.len(), parts.held_out[0].text.len()), (1, 1));
}

#[test]
fn bad_inputs_are_named() {
    let message = |documents, fraction| split(documents, fraction, 0).unwrap_err().to_string();
    for (fraction, shown) in [(0.0, "0"), (1.0, "1"), (-0.5, "-0.5"), (f64::NAN, "NaN")] {
        assert_eq!(
            message(of_lengths(&[9; 20]), fraction),
            format!(
                "`held_out_fraction` is {shown}, expected a number between 0 and 1, both excluded"
            )
        );
    }
    assert_eq!(message(vec![], 0.1), "the documents hold no text\nhint: add files with text");
    assert_eq!(
        message(of_lengths(&[0; 12]), 0.1),
        "the documents hold no text\nhint: add files with text"
    );
    assert_eq!(
        message(of_lengths(&[1, 0, 1]), 0.1),
        "2 bytes of text in 3 documents are too little to hold a part out\nhint: add text, at \
         least one \
         document of two bytes"
    );
}
