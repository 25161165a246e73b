//! Several nodes' schedules joined by a perfect link: everybody ends with everybody's sums.

use super::*;
use alloc::vec;
use plesio_kernels::Codec;
use plesio_wire::value::Entry;

const ELEMENTS: u64 = 10;

fn regions() -> Regions {
    crate::regions::sample(ELEMENTS, Codec::Full, 4)
}

#[derive(Default)]
struct Seen {
    unfit: Vec<NodeKey>,
    held: Vec<(NodeKey, SlotSeq)>,
    spans: Vec<Span>,
    sums: Vec<Sum>,
    shards: Vec<(LogIndex, MemberIndex)>,
}

/// A posted window: who may write it, its handle, the only sequence it takes, where it is.
type Window = (NodeKey, u16, Option<u16>, Span);

struct Mesh {
    nodes: Vec<Exchange>,
    keys: Vec<NodeKey>,
    posts: Vec<Vec<Window>>,
    seen: Vec<Seen>,
    /// Sent to a window that was not open yet.
    early: Vec<(usize, NodeKey, MessageId, Span)>,
}

impl Mesh {
    fn new(n: usize) -> Self {
        let keys: Vec<NodeKey> = (0..n as u64).map(|index| NodeKey(10 + index)).collect();
        let nodes = keys.iter().map(|key| Exchange::new(*key, regions())).collect();
        let seen = (0..n).map(|_| Seen::default()).collect();
        Self { nodes, posts: vec![Vec::new(); n], seen, early: Vec::new(), keys }
    }

    fn deliver(&mut self, to: usize, from: NodeKey, message: MessageId, span: Span) {
        let open = self.posts[to].iter().any(|(peer, handle, sequence, window)| {
            *peer == from
                && *handle == message.handle
                && sequence.is_none_or(|sequence| sequence == message.sequence)
                && window.len_bytes >= span.len_bytes
        });
        if open {
            self.nodes[to].handle_received(from, message, span.len_bytes);
        } else {
            self.early.push((to, from, message, span));
        }
    }

    fn run(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..self.nodes.len() {
                while let Some(action) = self.nodes[at].poll_action() {
                    quiet = false;
                    let me = self.keys[at];
                    match action {
                        Action::Send { to, message, span } => {
                            let to = self.keys.iter().position(|key| *key == to).unwrap();
                            self.deliver(to, me, message, span);
                        }
                        Action::Abort { to, message } => {
                            self.early.retain(|(at, from, early, _)| {
                                !(self.keys[*at] == to && *from == me && *early == message)
                            });
                        }
                        Action::Post { from, handle, sequence, span } => {
                            self.posts[at].retain(|post| (post.0, post.1) != (from, handle));
                            self.posts[at].push((from, handle, sequence, span));
                        }
                        Action::Withdraw { from, handle } => {
                            self.posts[at].retain(|post| (post.0, post.1) != (from, handle));
                        }
                        Action::Held { contributor, seq, span, .. } => {
                            self.seen[at].held.push((contributor, seq));
                            self.seen[at].spans.push(span);
                        }
                        Action::Unfit { contributor, .. } => self.seen[at].unfit.push(contributor),
                        Action::Sum(sum) => {
                            let context = sum.context;
                            self.seen[at].sums.push(sum);
                            self.nodes[at].handle_summed(context);
                        }
                        Action::Shard { context, owner } => self.seen[at].shards.push((context, owner)),
                    }
                }
            }
            for (to, from, message, span) in core::mem::take(&mut self.early) {
                self.deliver(to, from, message, span);
            }
            if quiet {
                break;
            }
        }
    }

    fn view(&mut self, members: &[usize]) {
        self.view_with(members, &[]);
    }

    fn view_with(&mut self, members: &[usize], shares: &[u16]) {
        let keys: Vec<NodeKey> = members.iter().map(|member| self.keys[*member]).collect();
        for (node, key) in self.nodes.iter_mut().zip(&self.keys) {
            node.handle_view(&keys, shares, keys.contains(key));
        }
    }

    fn ready(&mut self, from: usize, seq: u32) {
        for node in &mut self.nodes {
            node.handle_ready(self.keys[from], SlotSeq(seq));
        }
    }
}

fn manifest(entries: &[(u16, u32)]) -> Manifest {
    let mut manifest = Manifest::default();
    for (member, slot_seq) in entries {
        manifest
            .entries
            .push(Entry { member: *member, slot_seq: *slot_seq, weight: 1, ..Entry::default() })
            .unwrap();
    }
    manifest
}

#[test]
fn a_version_reaches_everybody() {
    let mut mesh = Mesh::new(3);
    mesh.view(&[0, 1, 2]);
    for node in 0..3 {
        mesh.ready(node, 7);
        mesh.nodes[node].handle_cut(2, SlotSeq(7));
    }
    mesh.run();
    for seen in &mesh.seen {
        assert_eq!(seen.held.len(), 3);
    }
    for node in 0..3 {
        mesh.nodes[node].handle_open(LogIndex(4), &manifest(&[(0, 7), (1, 7), (2, 7)]));
    }
    mesh.run();
    for node in 0..3 {
        let results = mesh.nodes[node].results().expect("all shards are here");
        assert_eq!(results.iter().map(|span| span.len_bytes).sum::<u32>(), ELEMENTS as u32 * 8);
        assert_eq!(mesh.seen[node].sums.len(), 1);
        assert_eq!(mesh.seen[node].sums[0].inputs.len(), 3);
    }
}

#[test]
fn data_before_ready_waits_and_long_lived_numbers_are_extended_right() {
    let mut mesh = Mesh::new(2);
    mesh.view(&[0, 1]);
    mesh.nodes[0].handle_cut(1, SlotSeq(70_000));
    mesh.run();
    assert!(mesh.seen[1].held.is_empty());
    mesh.ready(0, 70_000);
    mesh.run();
    assert_eq!(mesh.seen[1].held, [(mesh.keys[0], SlotSeq(70_000))]);
    assert_eq!(extend(SlotSeq(0x1_FFF0), 3), SlotSeq(0x2_0003));
    assert_eq!(extend(SlotSeq(0x2_0003), 0xFFF0), SlotSeq(0x1_FFF0));
}

#[test]
fn a_manifest_tells_numbers_to_one_who_missed_ready() {
    let mut mesh = Mesh::new(2);
    mesh.view(&[0, 1]);
    mesh.nodes[0].handle_cut(1, SlotSeq(70_000));
    mesh.run();
    assert!(mesh.seen[1].held.is_empty());
    mesh.nodes[1].handle_open(LogIndex(3), &manifest(&[(0, 70_000)]));
    mesh.run();
    assert_eq!(mesh.seen[1].held, [(mesh.keys[0], SlotSeq(70_000))]);
    assert_eq!(mesh.seen[1].sums.len(), 1);
}

#[test]
fn what_is_held_never_lies_in_an_open_window() {
    // Payload is placed before its checksum is known: a header with a flipped bit may name any open window.
    let mut mesh = Mesh::new(2);
    mesh.view(&[0, 1]);
    for seq in 1..=6 {
        mesh.ready(0, seq);
        mesh.nodes[0].handle_cut(2, SlotSeq(seq));
        mesh.run();
        let held = *mesh.seen[1].spans.last().unwrap();
        assert_eq!(mesh.seen[1].held.last(), Some(&(mesh.keys[0], SlotSeq(seq))));
        assert!(mesh.posts[1].iter().all(|(.., window)| *window != held));
        assert!(mesh.posts[1].iter().any(|(.., window)| window.offset_bytes == held.offset_bytes));
        mesh.nodes[1].handle_open(LogIndex(u64::from(seq)), &manifest(&[(0, seq)]));
        mesh.nodes[0].handle_done(SlotSeq(seq));
        mesh.run();
        assert_eq!(mesh.seen[1].sums.last().unwrap().inputs, [held]);
    }
}

#[test]
fn a_removed_owner_moves_its_range_to_the_others_and_the_old_context_is_forgotten() {
    let mut mesh = Mesh::new(3);
    mesh.view(&[0, 1, 2]);
    for node in 0..3 {
        mesh.ready(node, 1);
        mesh.nodes[node].handle_cut(0, SlotSeq(1));
    }
    mesh.run();
    // Node 2 dies after the manifest: nobody gets its range.
    for node in 0..2 {
        mesh.nodes[node].handle_open(LogIndex(1), &manifest(&[(0, 1), (1, 1), (2, 1)]));
    }
    mesh.run();
    assert_eq!(mesh.nodes[0].results(), None);
    mesh.view(&[0, 1]);
    for node in 0..2 {
        mesh.nodes[node].handle_open(LogIndex(2), &manifest(&[(0, 1), (1, 1)]));
    }
    mesh.run();
    for node in 0..2 {
        assert_eq!(mesh.nodes[node].results().unwrap().len(), 2);
        assert_eq!(mesh.seen[node].sums.last().unwrap().context, LogIndex(2));
    }
}

/// Elements that each node sums for the newest version, as the spans of its results say.
fn owned(mesh: &Mesh, node: usize) -> Vec<u32> {
    let results = mesh.nodes[node].results().expect("all shards are here");
    results.iter().map(|span| span.len_bytes / 8).collect()
}

#[test]
fn shares_say_who_sums_how_much_and_who_owns_nothing_neither_sends_nor_waits() {
    let mut mesh = Mesh::new(4);
    mesh.view_with(&[0, 1, 2, 3], &[0, 24_576, 0, 8_192]);
    for node in 0..4 {
        mesh.nodes[node].handle_cut(1, SlotSeq(5));
    }
    mesh.run();
    // Nothing of it is here or comes: what is held of a slot is known as soon as the slot is.
    assert!(mesh.posts[0].iter().all(|(_, handle, ..)| *handle >= HANDLE_RESULT), "{:?}", mesh.posts[0]);
    assert_eq!(mesh.seen[0].held, [(mesh.keys[0], SlotSeq(5))]);
    for node in 0..4 {
        mesh.ready(node, 5);
    }
    mesh.run();
    for (node, seen) in mesh.seen.iter().enumerate() {
        let mut held: Vec<NodeKey> = seen.held.iter().map(|(key, _)| *key).collect();
        held.sort_unstable();
        held.dedup();
        assert_eq!(held, mesh.keys, "node {node} holds its part of every slot, nothing being a part");
    }
    for node in 0..4 {
        mesh.nodes[node].handle_open(LogIndex(4), &manifest(&[(0, 5), (1, 5), (2, 5), (3, 5)]));
    }
    mesh.run();
    for node in 0..4 {
        assert_eq!(owned(&mesh, node), [0, 7, 0, 3]);
        assert_eq!(mesh.seen[node].sums.len(), usize::from(node % 2 == 1));
    }
    assert!(mesh.early.is_empty());
}

#[test]
fn the_largest_owner_dies_and_the_next_view_shares_out_anew() {
    let mut mesh = Mesh::new(3);
    mesh.view_with(&[0, 1, 2], &[32_768, 0, 0]);
    for node in 0..3 {
        mesh.ready(node, 1);
        mesh.nodes[node].handle_cut(0, SlotSeq(1));
    }
    mesh.run();
    for node in 1..3 {
        mesh.nodes[node].handle_open(LogIndex(1), &manifest(&[(0, 1), (1, 1), (2, 1)]));
    }
    mesh.run();
    assert_eq!(mesh.nodes[1].results(), None, "the only owner is silent");
    mesh.view_with(&[1, 2], &[3_277, 29_491]);
    for node in 1..3 {
        mesh.nodes[node].handle_open(LogIndex(2), &manifest(&[(0, 1), (1, 1)]));
    }
    mesh.run();
    for node in 1..3 {
        assert_eq!(owned(&mesh, node), [1, 9]);
    }
    assert_eq!((mesh.seen[1].sums[0].out.len_bytes, mesh.seen[2].sums[0].out.len_bytes), (8, 72));
}

#[test]
fn more_members_than_elements_commit_all_the_same() {
    let mut mesh = Mesh::new(16);
    mesh.view(&(0..16).collect::<Vec<usize>>());
    for node in 0..16 {
        mesh.ready(node, 1);
        mesh.nodes[node].handle_cut(0, SlotSeq(1));
    }
    mesh.run();
    for (seen, key) in mesh.seen.iter().zip(&mesh.keys) {
        let others = seen.held.iter().filter(|(from, _)| from != key).count();
        assert_eq!(others, 15);
    }
}

#[test]
fn a_result_has_one_writer_at_a_time() {
    let mut mesh = Mesh::new(3);
    mesh.view(&[0, 1, 2]);
    mesh.run();
    let keys = mesh.keys.clone();
    let node = &mut mesh.nodes[1];
    node.handle_open(LogIndex(4), &manifest(&[]));
    let opened = actions(node);
    let posts = |key: NodeKey| {
        opened.iter().filter(|action| matches!(action, Action::Post { from, .. } if *from == key)).count()
    };
    assert_eq!((posts(keys[0]), posts(keys[2])), (1, 1));
    // Owner 2 has died; node 0 has its result and serves it.
    let (handle, message) = (HANDLE_RESULT + 2, MessageId { handle: HANDLE_RESULT + 2, sequence: 4 });
    for wrong in [
        MessageId { sequence: 3, ..message },
        MessageId { handle: HANDLE_RESULT + 3, ..message },
        MessageId { handle: HANDLE_RESULT + 1, ..message },
        MessageId { handle: 2, ..message },
    ] {
        node.handle_offered(keys[0], wrong);
    }
    node.handle_offered(NodeKey(99), message);
    node.handle_offered(keys[2], message);
    assert_eq!(actions(node), []);
    node.handle_offered(keys[0], message);
    let span = regions().result(&regions().parts(3, &[]), 2);
    assert_eq!(
        actions(node),
        [
            Action::Withdraw { from: keys[2], handle },
            Action::Post { from: keys[0], handle, sequence: Some(4), span },
        ]
    );
    node.handle_received(keys[2], message, span.len_bytes);
    assert_eq!(actions(node), []);
    node.handle_received(keys[0], message, span.len_bytes);
    assert_eq!(actions(node), [Action::Shard { context: LogIndex(4), owner: 2 }]);
    node.handle_offered(keys[0], message);
    assert_eq!(actions(node), []);
}

#[test]
fn r17_a_server_that_falls_silent_leaves_its_place_to_the_one_before() {
    let mut mesh = Mesh::new(4);
    mesh.view(&[0, 1, 2, 3]);
    mesh.run();
    let keys = mesh.keys.clone();
    let node = &mut mesh.nodes[1];
    node.handle_open(LogIndex(4), &manifest(&[]));
    let (handle, message) = (HANDLE_RESULT + 3, MessageId { handle: HANDLE_RESULT + 3, sequence: 4 });
    let span = regions().result(&regions().parts(4, &[]), 3);
    let post = |from: NodeKey| Action::Post { from, handle, sequence: Some(4), span };
    node.handle_offered(keys[0], message);
    node.handle_offered(keys[2], message);
    actions(node);
    node.handle_silent(keys[0]);
    assert_eq!(actions(node), [], "it is not the one that writes");
    node.handle_silent(keys[2]);
    assert_eq!(actions(node), [Action::Withdraw { from: keys[2], handle }, post(keys[0])]);
    // Back again it may offer again; without any server the owner has its place.
    node.handle_offered(keys[2], message);
    assert_eq!(actions(node), [Action::Withdraw { from: keys[0], handle }, post(keys[2])]);
    node.handle_silent(keys[2]);
    node.handle_silent(keys[0]);
    assert_eq!(actions(node).last(), Some(&post(keys[3])));
    node.handle_received(keys[3], message, span.len_bytes);
    assert_eq!(actions(node), [Action::Shard { context: LogIndex(4), owner: 3 }]);
    node.handle_silent(keys[0]);
    assert_eq!(actions(node), []);
}

fn actions(node: &mut Exchange) -> Vec<Action> {
    let all = core::iter::from_fn(|| node.poll_action());
    all.filter(|action| !matches!(action, Action::Sum(_) | Action::Held { .. })).collect()
}

#[test]
fn a_released_slot_is_sent_no_more() {
    let mut mesh = Mesh::new(2);
    mesh.view(&[0, 1]);
    mesh.nodes[0].handle_cut(0, SlotSeq(1));
    mesh.run();
    mesh.nodes[0].handle_done(SlotSeq(1));
    let actions: Vec<Action> = core::iter::from_fn(|| mesh.nodes[0].poll_action()).collect();
    let message = MessageId { handle: 0, sequence: 1 };
    assert_eq!(actions, [Action::Abort { to: mesh.keys[1], message }]);
    mesh.view(&[0, 1]);
    mesh.run();
    assert_eq!(mesh.seen[1].held.len(), 0);
}

#[test]
fn a_slot_that_is_done_is_not_read_again() {
    // A view and the end of a slot can come in one breath: the ring has the slot's memory back by then.
    let mut mesh = Mesh::new(2);
    mesh.view(&[0, 1]);
    mesh.nodes[0].handle_cut(0, SlotSeq(1));
    mesh.nodes[0].handle_cut(1, SlotSeq(2));
    mesh.run();
    mesh.seen[0].held.clear();
    mesh.view(&[0, 1]);
    mesh.nodes[0].handle_done(SlotSeq(1));
    mesh.run();
    assert_eq!(mesh.seen[0].held, [(mesh.keys[0], SlotSeq(2))]);
}

/// What a window stood for is gone while it was being summed: nothing of that sum goes out, and the slot comes again.
#[test]
fn what_is_torn_is_held_again_before_it_is_summed() {
    let (me, from) = (NodeKey(11), NodeKey(10));
    let mut node = Exchange::new(me, regions());
    node.handle_view(&[from, me], &[], true);
    node.handle_ready(from, SlotSeq(1));
    let drain = |node: &mut Exchange| core::iter::from_fn(|| node.poll_action()).collect::<Vec<_>>();
    let len_bytes = regions().window(0, false, &regions().parts(2, &[]), 1, 0).len_bytes;
    let come = |node: &mut Exchange| {
        node.handle_received(from, MessageId { handle: 0, sequence: 1 }, len_bytes);
        let sums = drain(node).into_iter().filter_map(|action| match action {
            Action::Sum(sum) => Some(sum),
            _ => None,
        });
        sums.collect::<Vec<_>>()
    };
    assert!(come(&mut node).is_empty());
    node.handle_open(LogIndex(1), &manifest(&[(0, 1)]));
    let Some(Action::Sum(first)) = drain(&mut node).pop() else { panic!("all that is listed is held") };
    node.handle_torn(from, &first.inputs);
    node.handle_summed(LogIndex(1));
    assert_eq!(drain(&mut node), [], "what was summed is of no use");
    let again = come(&mut node);
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].inputs, first.inputs, "the window's other side");
    // What is torn elsewhere is another matter.
    node.handle_torn(from, &first.inputs);
    node.handle_torn(NodeKey(99), &again[0].inputs);
    node.handle_summed(LogIndex(1));
    assert!(drain(&mut node).iter().any(|action| matches!(action, Action::Send { .. })));
}

#[test]
fn c9_13_wrong_lengths_and_unknown_handles_change_nothing() {
    let mut mesh = Mesh::new(2);
    mesh.view(&[0, 1]);
    mesh.run();
    mesh.ready(0, 1);
    let (zero, stranger) = (mesh.keys[0], NodeKey(99));
    let node = &mut mesh.nodes[1];
    for handle in
        [0, 3, 4, 9, HANDLE_RESULT, HANDLE_RESULT + 1, HANDLE_RESULT + 40, HANDLE_SNAPSHOT, u16::MAX]
    {
        for len_bytes in [0, 1, 19, 21, u32::MAX] {
            node.handle_received(zero, MessageId { handle, sequence: 1 }, len_bytes);
            node.handle_received(stranger, MessageId { handle, sequence: 1 }, len_bytes);
        }
    }
    mesh.run();
    assert!(mesh.seen[1].held.is_empty() && mesh.seen[1].shards.is_empty());
    // What came for a window of this view is told, of strangers and other handles nothing.
    let unfit = &mesh.seen[1].unfit;
    assert!(unfit.len() >= 5 && unfit.iter().all(|from| *from == zero), "{unfit:?}");
}

#[test]
fn one_alone_needs_nobody() {
    let mut mesh = Mesh::new(1);
    mesh.view(&[0]);
    mesh.ready(0, 1);
    mesh.nodes[0].handle_cut(3, SlotSeq(1));
    mesh.nodes[0].handle_open(LogIndex(1), &manifest(&[(0, 1)]));
    mesh.run();
    assert_eq!(mesh.nodes[0].results().unwrap().len(), 1);
}

#[test]
fn an_observer_follows() {
    let mut mesh = Mesh::new(3);
    mesh.view(&[0, 1]);
    mesh.run();
    let observer = mesh.keys[2];
    for node in 0..2 {
        mesh.nodes[node].handle_observers(&[observer]);
        mesh.ready(node, 1);
        mesh.nodes[node].handle_cut(0, SlotSeq(1));
    }
    mesh.run();
    for node in 0..3 {
        mesh.nodes[node].handle_open(LogIndex(1), &manifest(&[(0, 1), (1, 1)]));
    }
    mesh.run();
    assert!(mesh.nodes[2].results().is_some());
}

#[test]
fn results_that_come_before_the_manifest_are_kept() {
    let mut mesh = Mesh::new(2);
    mesh.view(&[0, 1]);
    for node in 0..2 {
        mesh.ready(node, 1);
        mesh.nodes[node].handle_cut(0, SlotSeq(1));
    }
    mesh.run();
    mesh.nodes[1].handle_expect(LogIndex(3));
    mesh.nodes[1].handle_expect(LogIndex(4));
    mesh.run();
    mesh.nodes[0].handle_open(LogIndex(4), &manifest(&[(0, 1), (1, 1)]));
    mesh.run();
    assert!(mesh.early.is_empty(), "taken at once");
    mesh.nodes[1].handle_open(LogIndex(4), &manifest(&[(0, 1), (1, 1)]));
    mesh.run();
    assert!(mesh.nodes[1].results().is_some());
}
