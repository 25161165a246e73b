//! The two sockets of a simulated process: real datagrams, placed in and gathered from real arenas.

use super::{Process, Scene, host_of};
use crate::net::{Packet, Plane};
use plesio_proto::{Next, Train};
use plesio_wire::NodeKey;
use plesio_wire::data::{HEADER_BYTES, Header, Kind};

impl Process {
    pub(super) fn handle_data(&mut self, scene: &mut Scene<'_>, packet: &Packet) {
        let Some(peer) = self.peers.get(&packet.from).copied() else { return };
        let Ok(header) = Header::parse(&packet.bytes) else { return };
        let payload = &packet.bytes[HEADER_BYTES..];
        let mut placed = false;
        if header.kind == Kind::Data
            && let Some(span) = self.engine.place(peer, &header)
            && span.len_bytes as usize == payload.len()
        {
            // The kernel scatters the payload before anybody can check it.
            if let Err(error) = self.store.arena().write(span, payload) {
                return scene.checker.fail(format!("n{}: a place cannot be written: {error}", scene.host));
            }
            placed = true;
        }
        if header.verify(payload).is_err() {
            return;
        }
        if packet.damaged {
            return scene.checker.fail(format!("P4: n{} takes a damaged data datagram", scene.host));
        }
        if header.kind != Kind::Data {
            // A refusal is counted by the connection.
            let _ = self.engine.handle_datagram(scene.local, peer, &header, payload);
        } else if placed {
            let _ = self.engine.handle_datagram(scene.local, peer, &header, &[]);
        } else {
            self.engine.handle_unplaced(scene.local, peer, &header);
        }
    }

    pub(super) fn transmit_sideband(&mut self, scene: &mut Scene<'_>) {
        self.keep_orders(scene);
        while let Some(mut transmit) = self.machine.poll_transmit(scene.local) {
            if let Some(through) = transmit.through {
                let (to, datagram) = (transmit.to, transmit.bytes.to_vec());
                transmit = self.machine.enclose(to, through, &datagram);
            }
            if let Some(to) = host_of(transmit.to).filter(|_| !scene.lies.keeps(transmit.bytes)) {
                let way = (scene.host, to, Plane::Sideband);
                let members = self.engine.consensus().view().members.len();
                let lie = scene.lies.sideband(to, members, transmit.bytes);
                if let Some((_, Some(index))) = lie {
                    scene.checker.handle_equivocated(scene.host, index);
                }
                let bytes = lie.as_ref().map_or(transmit.bytes, |(bytes, _)| bytes);
                scene.net.send(scene.queue, scene.now_ns, way, [bytes, &[]]);
            }
            if let Some(id) = transmit.id
                && self.stamps
            {
                self.machine.handle_tx_stamp(scene.local, id, scene.local);
            }
        }
    }

    pub(super) fn transmit_data(&mut self, scene: &mut Scene<'_>) {
        let mut train = self.train.take().unwrap_or_default();
        while let Some((peer, next)) = self.engine.poll_transmit_into(scene.local, &mut train) {
            let Some(to) = self.peers.iter().find(|(_, key)| **key == peer).map(|(host, _)| *host) else {
                continue;
            };
            let way = (scene.host, to, Plane::Data);
            if scene.hushed {
                let what = "P8: HALT must have reached it, and it sends data";
                scene.checker.fail(format!("n{}: {what}", scene.host));
            }
            match next {
                Next::Train => self.transmit_train(scene, (peer, to), &train),
                Next::Control(control) => {
                    let mut header = control.header;
                    header.protect(control.body());
                    scene.net.send(scene.queue, scene.now_ns, way, [&header.to_bytes(), control.body()]);
                }
            }
        }
        self.train = Some(train);
    }

    fn transmit_train(&mut self, scene: &mut Scene<'_>, (peer, to): (NodeKey, u8), train: &Train) {
        for (header, span) in train.iter() {
            // What does not fit into the socket's buffer is lost, as on the way.
            self.sent += 1;
            if scene.lies.stall || scene.buffers.is_some_and(|most| self.sent > most) {
                continue;
            }
            if scene.net.refuses(scene.host, to, HEADER_BYTES + span.len_bytes as usize) {
                return self.engine.handle_path_limit(scene.local, peer, span.len_bytes);
            }
            self.buffer.resize(span.len_bytes as usize, 0);
            if let Err(error) = self.store.arena().read(*span, &mut self.buffer) {
                let host = scene.host;
                return scene.checker.fail(format!("n{host}: {span:?} cannot be sent: {error}"));
            }
            if let Some(lie) = scene.lies.payload(to, header, &mut self.buffer) {
                scene.checker.handle_lied(scene.host, lie);
            }
            let mut header = *header;
            header.payload_bytes = self.buffer.len() as u16;
            header.protect(&self.buffer);
            let way = (scene.host, to, Plane::Data);
            scene.net.send(scene.queue, scene.now_ns, way, [&header.to_bytes(), &self.buffer]);
        }
    }
}
