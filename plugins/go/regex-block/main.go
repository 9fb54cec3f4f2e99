// regex-block answers 403 to requests whose path matches one of the configured regular expressions.
//
// Config: {"patterns": ["^/admin(/|$)", "\\.bak$"]}, in the syntax of Go's regexp: matching takes time linear in the path.
// Caveats of plugins in Go: ../README.md. The hooks stand in edge.c.
package main

// #cgo CFLAGS: -std=c11 -O2 -Wall -Wextra -Werror -fvisibility=hidden -I${SRCDIR}/../../../abi/include
// #include <stdint.h>
import "C"

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"runtime/cgo"
	"unsafe"
)

type config struct {
	Patterns []string `json:"patterns"`
}

// blocker is what load makes and unload releases. It does not change in between: all workers use it at once.
type blocker struct {
	patterns []*regexp.Regexp
}

func newBlocker(text []byte) (*blocker, error) {
	var wanted config
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&wanted); err != nil {
		return nil, err
	}
	made := &blocker{}
	for _, pattern := range wanted.Patterns {
		compiled, err := regexp.Compile(pattern)
		if err != nil {
			return nil, err
		}
		made.patterns = append(made.patterns, compiled)
	}
	return made, nil
}

// Returns 0 after writing what is wrong to reason.
//
//export regexBlockLoad
func regexBlockLoad(text *C.uint8_t, length C.uint32_t, reason *C.uint8_t, room C.uint32_t, written *C.uint32_t) (handle C.uintptr_t) {
	fail := func(why any) {
		count := copy(unsafe.Slice((*byte)(reason), int(room)), fmt.Sprint(why))
		*written = C.uint32_t(count)
		handle = 0
	}
	defer func() {
		if panicked := recover(); panicked != nil {
			fail(panicked)
		}
	}()
	made, err := newBlocker(unsafe.Slice((*byte)(text), int(length)))
	if err != nil {
		fail(err)
		return
	}
	return C.uintptr_t(cgo.NewHandle(made))
}

//export regexBlockUnload
func regexBlockUnload(handle C.uintptr_t) {
	cgo.Handle(handle).Delete()
}

// 1 when the path matches, 0 when it does not, -1 when something went wrong.
//
//export regexBlockMatches
func regexBlockMatches(handle C.uintptr_t, path *C.uint8_t, length C.uint32_t) (answer C.int) {
	// A panic that is not recovered would end the gateway.
	defer func() {
		if recover() != nil {
			answer = -1
		}
	}()
	// The bytes belong to the gateway: they are looked at during the call and not kept.
	bytes := unsafe.Slice((*byte)(path), int(length))
	for _, pattern := range cgo.Handle(handle).Value().(*blocker).patterns {
		if pattern.Match(bytes) {
			return 1
		}
	}
	return 0
}

func main() {}
