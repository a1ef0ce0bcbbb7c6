package main

import (
	"math/rand/v2"
	"sort"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// volume serves one disk to the kernel until the next cut.
type volume struct {
	fuse.RawFileSystem
	lock      sync.Mutex
	disk      *disk
	nodes     map[uint64]*node
	syncDelay time.Duration
	// Closed when the power goes: from then on every call waits.
	frozen chan struct{}
	// Closed when whoever used the volume is dead: every call that waits fails.
	lost chan struct{}
}

func newVolume(held *disk, syncDelay time.Duration) *volume {
	v := &volume{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		disk:          held,
		nodes:         map[uint64]*node{fuse.FUSE_ROOT_ID: held.root},
		syncDelay:     syncDelay,
		frozen:        make(chan struct{}),
		lost:          make(chan struct{}),
	}
	return v
}

func (v *volume) freeze() {
	v.lock.Lock()
	defer v.lock.Unlock()
	close(v.frozen)
}

func (v *volume) cut(random *rand.Rand) (*disk, loss) {
	v.lock.Lock()
	defer v.lock.Unlock()
	after, told := v.disk.cut(random)
	close(v.lost)
	return after, told
}

// enter takes the lock, or says that the power is gone.
func (v *volume) enter() bool {
	v.lock.Lock()
	select {
	case <-v.frozen:
		v.lock.Unlock()
		<-v.lost
		return false
	default:
		return true
	}
}

// within runs a call under the lock.
func (v *volume) within(call func() fuse.Status) fuse.Status {
	if !v.enter() {
		return fuse.EIO
	}
	defer v.lock.Unlock()
	return call()
}

func (v *volume) attributes(of *node, out *fuse.Attr) {
	out.Ino = of.id
	out.Mode = of.mode | fuse.S_IFREG
	out.Nlink = 1
	if of.entries != nil {
		out.Mode = of.mode | fuse.S_IFDIR
		out.Nlink = 2
	}
	out.Size = uint64(len(of.data))
	out.Blocks = (out.Size + blockBytes - 1) / blockBytes * (blockBytes / 512)
	out.Blksize = blockBytes
	out.SetTimes(&of.changed, &of.changed, &of.changed)
}

func (v *volume) entry(of *node, out *fuse.EntryOut) {
	v.nodes[of.id] = of
	out.NodeId = of.id
	out.SetEntryTimeout(time.Hour)
	out.SetAttrTimeout(0)
	v.attributes(of, &out.Attr)
}

func (v *volume) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return v.within(func() fuse.Status {
		found := v.nodes[header.NodeId].entries[name]
		if found == nil {
			return fuse.ENOENT
		}
		v.entry(found, out)
		return fuse.OK
	})
}

func (v *volume) GetAttr(_ <-chan struct{}, input *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return v.within(func() fuse.Status {
		v.attributes(v.nodes[input.NodeId], &out.Attr)
		return fuse.OK
	})
}

func (v *volume) SetAttr(_ <-chan struct{}, input *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return v.within(func() fuse.Status {
		changed := v.nodes[input.NodeId]
		if size, given := input.GetSize(); given {
			v.disk.truncate(changed, size)
		}
		if mode, given := input.GetMode(); given {
			changed.mode = mode & 0o7777
		}
		v.attributes(changed, &out.Attr)
		return fuse.OK
	})
}

func (v *volume) Mkdir(_ <-chan struct{}, input *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return v.within(func() fuse.Status {
		made := v.disk.newNode(true, input.Mode)
		v.disk.add(v.nodes[input.NodeId], name, made)
		v.entry(made, out)
		return fuse.OK
	})
}

func (v *volume) Create(_ <-chan struct{}, input *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return v.within(func() fuse.Status {
		made := v.disk.newNode(false, input.Mode)
		v.disk.add(v.nodes[input.NodeId], name, made)
		v.entry(made, &out.EntryOut)
		return fuse.OK
	})
}

func (v *volume) Unlink(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return v.within(func() fuse.Status {
		if v.nodes[header.NodeId].entries[name] == nil {
			return fuse.ENOENT
		}
		v.disk.remove(v.nodes[header.NodeId], name)
		return fuse.OK
	})
}

func (v *volume) Rmdir(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return v.within(func() fuse.Status {
		gone := v.nodes[header.NodeId].entries[name]
		if gone == nil {
			return fuse.ENOENT
		}
		if len(gone.entries) > 0 {
			return fuse.Status(39) // ENOTEMPTY
		}
		v.disk.remove(v.nodes[header.NodeId], name)
		return fuse.OK
	})
}

func (v *volume) Rename(_ <-chan struct{}, input *fuse.RenameIn, oldName string, newName string) fuse.Status {
	return v.within(func() fuse.Status {
		if input.Flags != 0 {
			return fuse.EINVAL
		}
		from, into := v.nodes[input.NodeId], v.nodes[input.Newdir]
		if from.entries[oldName] == nil {
			return fuse.ENOENT
		}
		v.disk.rename(from, oldName, into, newName)
		return fuse.OK
	})
}

func (v *volume) Open(_ <-chan struct{}, _ *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	return v.within(func() fuse.Status { return fuse.OK })
}

func (v *volume) Read(_ <-chan struct{}, input *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	var read []byte
	status := v.within(func() fuse.Status {
		data := v.nodes[input.NodeId].data
		start := min(input.Offset, uint64(len(data)))
		end := min(start+uint64(input.Size), uint64(len(data)))
		// The bytes are never written over, only replaced or appended to.
		read = data[start:end]
		return fuse.OK
	})
	return fuse.ReadResultData(read), status
}

func (v *volume) Write(_ <-chan struct{}, input *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	status := v.within(func() fuse.Status {
		v.disk.write(v.nodes[input.NodeId], input.Offset, data)
		return fuse.OK
	})
	return uint32(len(data)), status
}

// Fsync promises what was there when it was called, and takes the time of a real disk.
func (v *volume) Fsync(_ <-chan struct{}, input *fuse.FsyncIn) fuse.Status {
	var until uint64
	status := v.within(func() fuse.Status {
		until = v.disk.numbers
		return fuse.OK
	})
	if status != fuse.OK {
		return status
	}
	if v.syncDelay > 0 {
		time.Sleep(time.Duration(rand.Int64N(int64(2 * v.syncDelay))))
	}
	return v.within(func() fuse.Status {
		v.disk.sync(v.nodes[input.NodeId], until)
		return fuse.OK
	})
}

func (v *volume) FsyncDir(cancel <-chan struct{}, input *fuse.FsyncIn) fuse.Status {
	return v.Fsync(cancel, input)
}

func (v *volume) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status {
	return v.within(func() fuse.Status { return fuse.OK })
}

func (v *volume) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	return v.within(func() fuse.Status { return fuse.OK })
}

func (v *volume) ReadDir(_ <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return v.within(func() fuse.Status {
		entries := v.nodes[input.NodeId].entries
		names := make([]string, 0, len(entries))
		for name := range entries {
			names = append(names, name)
		}
		sort.Slice(names, func(one, other int) bool { return entries[names[one]].id < entries[names[other]].id })
		for at, name := range names {
			// A directory may shrink while it is listed: places are ids, not counts.
			if entries[names[at]].id <= input.Offset {
				continue
			}
			listed := fuse.DirEntry{Name: name, Ino: entries[name].id, Mode: fuse.S_IFREG, Off: entries[name].id}
			if entries[name].entries != nil {
				listed.Mode = fuse.S_IFDIR
			}
			if !out.AddDirEntry(listed) {
				break
			}
		}
		return fuse.OK
	})
}

func (v *volume) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	// A roomy volume: limits of space are not what this one is about.
	*out = fuse.StatfsOut{Blocks: 1 << 26, Bfree: 1 << 25, Bavail: 1 << 25, Bsize: blockBytes, Frsize: blockBytes, NameLen: 255}
	return fuse.OK
}
