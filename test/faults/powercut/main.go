// A volume in memory that can lose its power: mounted by FUSE, told what to do on standard input,
// one word a line, each answered by one line of JSON.
//
//	freeze    the power goes: calls do not return any more
//	cut SEED  calls that wait fail; the disk becomes what a cut can leave, by that seed
//	mount     mounts that disk in place of the old one
//
// At the end of standard input the volume is unmounted, so nothing stays when its user dies.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

type mounted struct {
	path   string
	delay  time.Duration
	disk   *disk
	volume *volume
	server *fuse.Server
}

func (m *mounted) mount() error {
	m.detach()
	m.volume = newVolume(m.disk, m.delay)
	options := fuse.MountOptions{
		FsName:             "powercut",
		Name:               "powercut",
		DirectMountStrict:  true,
		AllowOther:         true,
		MaxWrite:           1 << 20,
		DisableReadDirPlus: true,
		Options:            []string{"default_permissions"},
	}
	server, err := fuse.NewServer(m.volume, m.path, &options)
	if err != nil {
		return err
	}
	m.server = server
	go server.Serve()
	return server.WaitMount()
}

// detach does not wait for whoever still has files open.
func (m *mounted) detach() {
	if m.server != nil {
		_ = syscall.Unmount(m.path, syscall.MNT_DETACH)
		m.server = nil
	}
}

func (m *mounted) obey(words []string) (any, error) {
	switch {
	case len(words) == 1 && words[0] == "freeze":
		m.volume.freeze()
		return struct{}{}, nil
	case len(words) == 2 && words[0] == "cut":
		seed, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return nil, err
		}
		after, told := m.volume.cut(rand.New(rand.NewPCG(seed, 0)))
		m.disk = after
		return told, nil
	case len(words) == 1 && words[0] == "mount":
		return struct{}{}, m.mount()
	}
	return nil, fmt.Errorf("unknown: %s", strings.Join(words, " "))
}

func answer(value any, err error) {
	if err != nil {
		value = map[string]string{"error": err.Error()}
	}
	line, _ := json.Marshal(value)
	fmt.Println(string(line))
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: powercut DIRECTORY MEAN-FSYNC-MICROSECONDS")
		os.Exit(64)
	}
	micros, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(64)
	}
	m := &mounted{path: os.Args[1], delay: time.Duration(micros) * time.Microsecond, disk: newDisk()}
	answer(struct{}{}, m.mount())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer(m.obey(strings.Fields(lines.Text())))
	}
	m.detach()
}
