package main

import (
	"math/rand/v2"
	"sort"
	"time"
)

// What the volume promises about a power cut, and what it does not. It is meant to be at least as
// nasty as any journalling file system of Linux (ext4 in each of its data modes, XFS, btrfs):
//
//   - fsync or fdatasync of a file makes durable what was written to it before the call, the names
//     that the file got before the call (create, rename), and the directories above it. Nothing
//     else: not the other names that wait in the journal, which ext4 would write as well.
//   - fsync of a directory makes durable the changes of names inside it, and the directories above.
//   - Everything else waits. Changes of names (create, mkdir, rename, unlink, rmdir) reach the disk
//     in their order, so a cut keeps any first part of those that wait, each whole.
//   - Data that waits is kept or lost file by file, whatever became of the names: none of it; all of
//     it; the first writes, the last of them torn at a sector (512 bytes); or any subset of its
//     blocks (4 KiB), where a file that grew shows zeros for a block that was not written.
//   - An fsync that had not returned at the cut promises nothing.
//   - Modes, owners and times do not count: they are kept as they are.

const (
	blockBytes  = 4096
	sectorBytes = 512
)

// node is a file or a directory: as programs see it, and as the disk has it.
type node struct {
	id      uint64
	mode    uint32
	changed time.Time
	parent  *node

	entries        map[string]*node // nil for a file
	durableEntries map[string]*node

	data    []byte
	durable []byte
	waiting []write
}

// write is a change of a file's bytes that no fsync has covered: a truncation where data is nil.
type write struct {
	at     uint64
	data   []byte
	number uint64
}

// naming is a change of names that no fsync has covered. A rename removes and adds at once.
type naming struct {
	number     uint64
	node       *node
	from, into *node
	fromName   string
	intoName   string
}

type disk struct {
	root    *node
	journal []*naming
	numbers uint64 // of writes and namings, in the order of their happening
	ids     uint64
}

func newDisk() *disk {
	d := &disk{ids: 1}
	d.root = d.newNode(true, 0o755)
	return d
}

func (d *disk) newNode(isDirectory bool, mode uint32) *node {
	made := &node{id: d.ids, mode: mode & 0o7777, changed: time.Now()}
	d.ids++
	if isDirectory {
		made.entries = map[string]*node{}
		made.durableEntries = map[string]*node{}
	}
	return made
}

func (d *disk) next() uint64 {
	d.numbers++
	return d.numbers
}

func (d *disk) add(into *node, name string, made *node) {
	into.entries[name] = made
	made.parent = into
	d.journal = append(d.journal, &naming{number: d.next(), node: made, into: into, intoName: name})
}

func (d *disk) remove(from *node, name string) {
	gone := from.entries[name]
	delete(from.entries, name)
	d.journal = append(d.journal, &naming{number: d.next(), node: gone, from: from, fromName: name})
}

func (d *disk) rename(from *node, fromName string, into *node, intoName string) {
	moved := from.entries[fromName]
	delete(from.entries, fromName)
	into.entries[intoName] = moved
	moved.parent = into
	change := &naming{number: d.next(), node: moved, from: from, fromName: fromName, into: into, intoName: intoName}
	d.journal = append(d.journal, change)
}

func (d *disk) write(file *node, at uint64, data []byte) {
	kept := append([]byte(nil), data...)
	file.data = applied(file.data, write{at: at, data: kept})
	file.waiting = append(file.waiting, write{at: at, data: kept, number: d.next()})
	file.changed = time.Now()
}

func (d *disk) truncate(file *node, size uint64) {
	file.data = applied(file.data, write{at: size})
	file.waiting = append(file.waiting, write{at: size, number: d.next()})
	file.changed = time.Now()
}

// applied gives the bytes after a write; the old ones may be shared with others and stay as they are
// where the write overwrites them.
func applied(bytes []byte, change write) []byte {
	if change.data == nil {
		return resized(bytes, change.at)
	}
	end := change.at + uint64(len(change.data))
	if uint64(len(bytes)) == change.at {
		return append(bytes, change.data...)
	}
	grown := append([]byte(nil), bytes...)
	if uint64(len(grown)) < end {
		grown = resized(grown, end)
	}
	copy(grown[change.at:], change.data)
	return grown
}

func resized(bytes []byte, size uint64) []byte {
	if uint64(len(bytes)) >= size {
		return append([]byte(nil), bytes[:size]...)
	}
	return append(append([]byte(nil), bytes...), make([]byte, size-uint64(len(bytes)))...)
}

// sync makes durable what an fsync of the node promises, as of the moment with that number.
func (d *disk) sync(synced *node, until uint64) {
	for above := synced; above != nil && above != d.root; above = above.parent {
		d.commit(until, func(change *naming) bool { return change.node == above && change.into != nil })
	}
	if synced.entries != nil {
		d.commit(until, func(change *naming) bool { return change.from == synced || change.into == synced })
		return
	}
	covered := 0
	for covered < len(synced.waiting) && synced.waiting[covered].number <= until {
		synced.durable = applied(synced.durable, synced.waiting[covered])
		covered++
	}
	synced.waiting = append([]write(nil), synced.waiting[covered:]...)
}

func (d *disk) commit(until uint64, wanted func(*naming) bool) {
	var left []*naming
	for _, change := range d.journal {
		if change.number > until || !wanted(change) {
			left = append(left, change)
			continue
		}
		change.apply()
		// What gave this name to another file before must not come back over it.
		for _, earlier := range left {
			if change.into != nil && earlier.into == change.into && earlier.intoName == change.intoName {
				earlier.into = nil
			}
		}
	}
	d.journal = left
}

func (change *naming) apply() {
	if change.from != nil && change.from.durableEntries[change.fromName] == change.node {
		delete(change.from.durableEntries, change.fromName)
	}
	if change.into != nil {
		change.into.durableEntries[change.intoName] = change.node
	}
}

// loss tells what a cut took.
type loss struct {
	NamesWaiting int   `json:"namesWaiting"`
	NamesLost    int   `json:"namesLost"`
	FilesWaiting int   `json:"filesWaiting"`
	FilesChanged int   `json:"filesChanged"`
	BytesWaiting int64 `json:"bytesWaiting"`
}

// cut gives the disk as it is found after the power came back.
func (d *disk) cut(random *rand.Rand) (*disk, loss) {
	told := loss{NamesWaiting: len(d.journal)}
	kept := 0
	switch random.IntN(4) {
	case 0:
	case 1:
		kept = len(d.journal)
	default:
		kept = random.IntN(len(d.journal) + 1)
	}
	for _, change := range d.journal[:kept] {
		change.apply()
	}
	told.NamesLost = len(d.journal) - kept
	after := &disk{ids: d.ids}
	after.root = after.found(d.root, random, &told)
	return after, told
}

func (d *disk) found(old *node, random *rand.Rand, told *loss) *node {
	made := d.newNode(old.entries != nil, old.mode)
	made.changed = old.changed
	if old.entries == nil {
		made.durable = old.remains(random, told)
		// Without spare room: what is appended later to one must not show in the other.
		made.data = made.durable[:len(made.durable):len(made.durable)]
		return made
	}
	names := make([]string, 0, len(old.durableEntries))
	for name := range old.durableEntries {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		entry := d.found(old.durableEntries[name], random, told)
		entry.parent = made
		made.entries[name] = entry
		made.durableEntries[name] = entry
	}
	return made
}

// remains gives the bytes of a file after a cut.
func (n *node) remains(random *rand.Rand, told *loss) []byte {
	// A copy: appending to what two cuts share would write over the other's bytes.
	durable := append([]byte(nil), n.durable...)
	if len(n.waiting) == 0 {
		return durable
	}
	told.FilesWaiting++
	for _, change := range n.waiting {
		told.BytesWaiting += int64(len(change.data))
	}
	var left []byte
	switch choice := random.IntN(10); {
	case choice < 2:
		left = durable
	case choice < 4:
		return append([]byte(nil), n.data...)
	case choice < 7:
		left = n.firstWrites(durable, random)
	default:
		left = n.someBlocks(durable, random)
	}
	if string(left) != string(n.data) {
		told.FilesChanged++
	}
	return left
}

func (n *node) firstWrites(durable []byte, random *rand.Rand) []byte {
	whole := random.IntN(len(n.waiting))
	left := durable
	for _, change := range n.waiting[:whole] {
		left = applied(left, change)
	}
	torn := n.waiting[whole]
	if torn.data == nil {
		return left
	}
	// Sectors are those of the file, not of the write.
	end := torn.at + uint64(random.IntN(len(torn.data)+1))
	end -= end % sectorBytes
	if end <= torn.at {
		return left
	}
	return applied(left, write{at: torn.at, data: torn.data[:end-torn.at]})
}

func (n *node) someBlocks(durable []byte, random *rand.Rand) []byte {
	size := len(n.data)
	if random.IntN(2) == 0 {
		least, most := min(len(durable), len(n.data)), max(len(durable), len(n.data))
		size = least + random.IntN(most-least+1)
		if size < most && size-size%blockBytes >= least {
			size -= size % blockBytes
		}
	}
	left := resized(durable, uint64(size))
	for start := 0; start < size; start += blockBytes {
		if start >= len(n.data) || random.IntN(2) == 0 {
			continue
		}
		copy(left[start:], n.data[start:min(start+blockBytes, size, len(n.data))])
	}
	return left
}
