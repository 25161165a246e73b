//! Two neighbours' words and notices, in order and out of it, and whatever else somebody may say.

use super::*;
use alloc::vec;
use plesio_kernels::Codec;
use proptest::prelude::*;

const PEER: NodeKey = NodeKey(7);
const OURS: u64 = 100;
const THEIRS: u64 = 200;

fn regions() -> Regions {
    crate::regions::sample(1_000, Codec::Full, 1)
}

fn span(region: u16, offset_bytes: u32) -> Span {
    Span { region, offset_bytes, len_bytes: 400 }
}

fn message(handle: u16, sequence: u16) -> MessageId {
    MessageId { handle, sequence }
}

fn notice(region: u16) -> Notice {
    Notice { generation: 4, arena: THEIRS, span: span(region, 0) }
}

/// Connected, and each has the other's memory.
fn near() -> Neighbours {
    let mut near = Neighbours::new(regions(), Some(OURS));
    let (window, word) = near.handle_open(PEER);
    assert!(window.is_some());
    assert_eq!(word, Some(NearWord { says: NearSays::Open, arena: OURS }));
    assert_eq!(
        near.handle_word(PEER, &NearWord { says: NearSays::Open, arena: THEIRS }),
        Some(Wish::Map((PEER, THEIRS)))
    );
    assert_eq!(near.handle_mapped((PEER, THEIRS)), Some(vec![]));
    assert!(!near.is_near(PEER));
    assert_eq!(near.handle_word(PEER, &NearWord { says: NearSays::Mapped, arena: OURS }), None);
    assert!(near.is_near(PEER));
    near
}

#[test]
fn a_slot_is_told_of_once_and_then_sent() {
    let mut near = near();
    let (slot, two) = (span(3, 800), message(2, 9));
    let cell = near.handle_send(PEER, two, slot).expect("a notice suffices");
    assert_eq!((cell.region, cell.len_bytes), (regions().cells + 1, NEAR_BYTES as u32));
    assert!(near.handle_written(PEER, two, slot, true));
    assert!(!near.handle_written(PEER, two, slot, true), "it went already");
    assert_eq!(near.handle_send(PEER, two, slot), None, "who asks again could not use it");
    // What is aborted before it is written does not go, nor what was given another place meanwhile.
    let three = message(2, 10);
    near.handle_send(PEER, three, slot).expect("a new one");
    near.handle_abort(PEER, three);
    assert!(!near.handle_written(PEER, three, slot, true));
    near.handle_send(PEER, three, slot).expect("again");
    assert!(!near.handle_written(PEER, three, span(3, 0), true));
    // What lies elsewhere, or is no longer than a notice, is sent.
    for elsewhere in [span(2, 800), span(15, 0), Span { len_bytes: 32, ..slot }] {
        assert_eq!(near.handle_send(PEER, three, elsewhere), None, "{elsewhere:?}");
    }
    for (handle, region) in [(HANDLE_RESULT + 1, 13), (HANDLE_RESULT + 1, 14), (HANDLE_SNAPSHOT, 16)] {
        assert!(near.handle_send(PEER, message(handle, 1), span(region, 0)).is_some());
    }
    assert_eq!(near.handle_send(NodeKey(8), three, slot), None, "a stranger is sent payload");
    // It cannot use them: everything told is taken back, and nothing is told any more.
    let unmapped = NearWord { says: NearSays::Unmapped, arena: OURS };
    let taken_back = vec![message(2 | HANDLE_NOTICE, 9)];
    assert_eq!(near.handle_word(PEER, &unmapped), Some(Wish::Payload(taken_back)));
    assert_eq!(near.handle_word(PEER, &unmapped), None);
    near.handle_word(PEER, &NearWord { says: NearSays::Mapped, arena: OURS });
    assert_eq!(near.handle_send(PEER, three, slot), None);
}

#[test]
fn a_window_is_a_name_until_something_else_lies_there() {
    let mut near = near();
    let window = span(9, 0);
    let cell = near.handle_post(PEER, 2, None, window).expect("notices may come");
    assert_eq!(cell.region, regions().cells);
    assert!(near.handle_notice(PEER, message(2, 9)));
    assert_eq!(near.alias(window), None, "it was not looked at yet");
    let (claim, told) = near.take_in(PEER, message(2, 9), Some(&notice(3))).expect("it fits");
    let alias = Alias { arena: (PEER, THEIRS), span: span(3, 0), generation: 4 };
    assert_eq!((claim.window, told), (window, Told::Alias(alias)));
    assert_eq!(near.alias(window), Some(alias));
    // The same number again finds nothing open.
    assert!(!near.handle_notice(PEER, message(2, 9)));
    assert_eq!(near.take_in(PEER, message(2, 9), Some(&notice(3))), Err((NoticeError::Unposted, None)));
    assert_eq!(near.refused(), 2);
    // The connection goes; what is a name for its memory still needs it, until a view.
    assert_eq!(near.handle_close(PEER), None);
    assert_eq!(near.alias(window), Some(alias));
    assert_eq!(near.handle_view(), [(PEER, THEIRS)]);
    assert_eq!(near.alias(window), None);
}

#[test]
fn payload_and_tears_end_a_name() {
    let mut near = near();
    let windows = [span(9, 0), span(10, 0)];
    for (sequence, window) in [9, 10].into_iter().zip(windows) {
        near.handle_post(PEER, 2, None, window);
        assert!(near.handle_notice(PEER, message(2, sequence)));
        near.take_in(PEER, message(2, sequence), Some(&notice(3))).expect("it fits");
    }
    near.handle_payload(PEER, 2, windows[0]);
    assert_eq!(near.alias(windows[0]), None);
    assert_eq!(near.handle_torn((PEER, THEIRS)), (vec![windows[1]], true));
    assert_eq!(near.alias(windows[1]), None);
    assert_eq!(near.handle_torn((PEER, THEIRS)), (vec![], false), "once");
    near.handle_post(PEER, 3, None, windows[0]);
    near.handle_notice(PEER, message(3, 1));
    let refused = near.take_in(PEER, message(3, 1), Some(&notice(4))).expect_err("nothing of it is used");
    assert_eq!(refused.0, NoticeError::Arena);
}

#[test]
fn a_slot_that_its_owner_took_back_ends_its_name_alone() {
    let mut near = near();
    let windows = [span(9, 0), span(10, 0)];
    let tell = |near: &mut Neighbours, sequence: u16, window| {
        near.handle_post(PEER, 2, None, window);
        assert!(near.handle_notice(PEER, message(2, sequence)));
        let notice = Notice { generation: 2 * u32::from(sequence), ..notice(3) };
        near.take_in(PEER, message(2, sequence), Some(&notice)).expect("it fits");
        near.alias(window).expect("its name")
    };
    tell(&mut near, 1, windows[0]);
    for round in 2..9 {
        let alias = tell(&mut near, round, windows[1]);
        assert_eq!(near.handle_gone(alias), (vec![windows[1]], false));
    }
    assert!(near.alias(windows[0]).is_some() && near.is_near(PEER));
    near.handle_whole(PEER);
    for round in 9..17 {
        let alias = tell(&mut near, round, windows[1]);
        assert_eq!(near.handle_gone(alias).1, round == 16, "eight in a row are no chance");
    }
    let alias = tell(&mut near, 17, windows[1]);
    assert_eq!(near.handle_gone(Alias { generation: 1, ..alias }).0, [], "that is another one");
}

#[test]
fn results_and_states_are_taken() {
    let mut near = near();
    for (handle, region) in [(HANDLE_RESULT + 3, 13), (HANDLE_RESULT + 3, 14), (HANDLE_SNAPSHOT, 16)] {
        let result = message(handle, 5);
        near.handle_post(PEER, handle, Some(5), span(15, 0));
        assert!(near.handle_notice(PEER, result));
        let (_, told) = near.take_in(PEER, result, Some(&notice(region))).expect("it fits");
        assert!(matches!(told, Told::Take(alias) if alias.span == span(region, 0)));
        assert_eq!(near.alias(span(15, 0)), None, "its bytes are to be copied");
        let claim = near.handle_taken(PEER, result, region != 14).expect("it was open");
        assert_eq!((claim.sequence, claim.window), (Some(5), span(15, 0)));
        assert_eq!(near.handle_taken(PEER, result, true), None, "once");
    }
    assert_eq!(near.refused(), 1, "one could not be copied");
    // A cut is as long as it is; anything else as long as its window.
    let short = |region| Notice { span: Span { len_bytes: 40, ..span(region, 0) }, ..notice(region) };
    near.handle_post(PEER, HANDLE_CUT, None, span(17, 0));
    near.handle_notice(PEER, message(HANDLE_CUT, 1));
    assert!(near.take_in(PEER, message(HANDLE_CUT, 1), Some(&short(16))).is_ok());
    near.handle_post(PEER, 1, None, span(9, 0));
    near.handle_notice(PEER, message(1, 1));
    let refused = near.take_in(PEER, message(1, 1), Some(&short(2))).expect_err("half a slot is none");
    assert_eq!((refused.0, refused.1.map(|claim| claim.window)), (NoticeError::Length, Some(span(9, 0))));
    near.handle_post(PEER, 1, None, span(9, 0));
    near.handle_notice(PEER, message(1, 2));
    // A window that was closed meanwhile is nobody's.
    near.handle_withdraw(PEER, 1);
    assert_eq!(near.take_in(PEER, message(1, 2), Some(&notice(2))), Err((NoticeError::Unposted, None)));
}

#[test]
fn who_comes_before_the_memory_is_mapped_is_heard_afterwards() {
    let mut near = Neighbours::new(regions(), None);
    assert_eq!(near.handle_open(PEER).1, None, "nothing of its own to offer");
    assert_eq!(near.handle_post(PEER, 2, None, span(9, 0)), None);
    let open = NearWord { says: NearSays::Open, arena: THEIRS };
    assert_eq!(near.handle_word(PEER, &open), Some(Wish::Map((PEER, THEIRS))));
    let again = NearWord { arena: THEIRS + 1, ..open };
    assert_eq!(near.handle_word(PEER, &again), None, "one arena a connection");
    let cells = near.handle_mapped((PEER, THEIRS)).expect("connected");
    assert_eq!(cells.len(), 1);
    assert_eq!((cells[0].0, cells[0].1), (2, None));
    assert_eq!(near.handle_mapped((NodeKey(8), 1)), None);
    assert_eq!(near.handle_mapped((PEER, THEIRS + 1)), None, "of an earlier connection");
    assert_eq!(near.handle_send(PEER, message(2, 1), span(3, 0)), None, "nobody reads it");
    assert_eq!(near.handle_close(PEER), Some((PEER, THEIRS)));
}

/// Something that somebody says or does.
#[derive(Clone, Debug)]
enum Step {
    Open(u64),
    Close(u64),
    View,
    Mapped(u64, u64),
    Word(u64, NearWord),
    Post(u64, u16, Span),
    Withdraw(u64, u16),
    Payload(u64, u16, Span),
    Notice(u64, MessageId, Notice),
    Taken(u64, MessageId, bool),
    Torn(u64, u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let peer = || 0..3_u64;
    let arena = || 200..203_u64;
    let handle = || prop_oneof![0..5_u16, 0x100..0x103_u16, 0x200..0x202_u16];
    let place = || {
        (0..20_u16, 0..3_u32, 1..3_u32).prop_map(|(region, at, len)| Span {
            region,
            offset_bytes: at * 400,
            len_bytes: len * 400,
        })
    };
    let message = move || (handle(), 0..3_u16).prop_map(|(handle, sequence)| MessageId { handle, sequence });
    let says = prop_oneof![Just(NearSays::Mapped), Just(NearSays::Unmapped)];
    let notice = (arena(), place(), 0..9_u32).prop_map(|(arena, span, word)| Notice {
        generation: word * 2,
        arena,
        span,
    });
    prop_oneof![
        peer().prop_map(Step::Open),
        peer().prop_map(Step::Close),
        Just(Step::View),
        (peer(), arena()).prop_map(|(peer, arena)| Step::Mapped(peer, arena)),
        (peer(), says, 100..102_u64)
            .prop_map(|(peer, says, arena)| Step::Word(peer, NearWord { says, arena })),
        (peer(), handle(), place()).prop_map(|(peer, handle, window)| Step::Post(peer, handle, window)),
        (peer(), handle()).prop_map(|(peer, handle)| Step::Withdraw(peer, handle)),
        (peer(), handle(), place()).prop_map(|(peer, handle, window)| Step::Payload(peer, handle, window)),
        (peer(), message(), notice).prop_map(|(peer, message, notice)| Step::Notice(peer, message, notice)),
        (peer(), message(), any::<bool>())
            .prop_map(|(peer, message, whole)| Step::Taken(peer, message, whole)),
        (peer(), arena()).prop_map(|(peer, arena)| Step::Torn(peer, arena)),
    ]
}

proptest! {
    #[test]
    fn no_order_of_words_makes_a_name_for_what_is_not_there(steps in prop::collection::vec(steps(), 0..200)) {
        let mut near = Neighbours::new(regions(), Some(OURS));
        // What a shell would have mapped.
        let mut mapped = alloc::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Open(peer) => {
                    if let Some(arena) = near.handle_close(NodeKey(peer)) {
                        mapped.remove(&arena);
                    }
                    near.handle_open(NodeKey(peer));
                }
                Step::Close(peer) => {
                    if let Some(arena) = near.handle_close(NodeKey(peer)) {
                        mapped.remove(&arena);
                    }
                }
                Step::View => near.handle_view().iter().for_each(|arena| {
                    mapped.remove(arena);
                }),
                Step::Mapped(peer, arena) => {
                    // Once for each connection, as the wish for it is.
                    let peer = NodeKey(peer);
                    if near.handle_word(peer, &NearWord { says: NearSays::Open, arena }).is_some()
                        && near.handle_mapped((peer, arena)).is_some()
                    {
                        mapped.insert((peer, arena));
                    }
                }
                Step::Word(peer, word) => drop(near.handle_word(NodeKey(peer), &word)),
                Step::Post(peer, handle, window) => {
                    near.handle_post(NodeKey(peer), handle, None, window);
                }
                Step::Withdraw(peer, handle) => near.handle_withdraw(NodeKey(peer), handle),
                Step::Payload(peer, handle, window) => near.handle_payload(NodeKey(peer), handle, window),
                Step::Notice(peer, message, notice) => {
                    near.handle_notice(NodeKey(peer), message);
                    if let Ok((claim, told)) = near.take_in(NodeKey(peer), message, Some(&notice)) {
                        let (Told::Alias(alias) | Told::Take(alias)) = told;
                        prop_assert!(mapped.contains(&alias.arena));
                        prop_assert!(alias.span.len_bytes <= claim.window.len_bytes);
                    }
                }
                Step::Taken(peer, message, whole) => {
                    near.handle_taken(NodeKey(peer), message, whole);
                }
                Step::Torn(peer, arena) => {
                    near.handle_torn((NodeKey(peer), arena));
                    mapped.remove(&(NodeKey(peer), arena));
                }
            }
            for alias in near.aliases.values() {
                prop_assert!(mapped.contains(&alias.arena), "{alias:?} is mapped nowhere");
            }
        }
    }
}
