// Package sitter has the types of go-tree-sitter that Vale names, without its parsers. The parsers are C: to compile
// them takes a C compiler and a minute. Vale needs them only to find comments in source code, and this project has
// Vale check source files as text, because messages are in strings.
package sitter

import (
	"context"
	"errors"
)

var errLeftOut = errors.New("tree-sitter is not part of this build of Vale: check the file as text")

type (
	Language     struct{}
	Tree         struct{}
	Query        struct{}
	QueryCursor  struct{}
	Parser       struct{}
	Node         struct{}
	Point        struct{ Row, Column uint32 }
	QueryCapture struct {
		Index uint32
		Node  *Node
	}
	QueryMatch struct{ Captures []QueryCapture }
)

func NewParser() *Parser                { return &Parser{} }
func (*Parser) SetLanguage(*Language)   {}
func (*Tree) RootNode() *Node           { return nil }
func NewQueryCursor() *QueryCursor      { return &QueryCursor{} }
func (*QueryCursor) Exec(*Query, *Node) {}
func (*Node) Content([]byte) string     { return "" }
func (*Node) StartPoint() Point         { return Point{} }

func (*Parser) ParseCtx(context.Context, *Tree, []byte) (*Tree, error) { return nil, errLeftOut }
func NewQuery([]byte, *Language) (*Query, error)                       { return nil, errLeftOut }
func (*Query) CaptureNameForId(uint32) string                          { return "" }
func (*QueryCursor) NextMatch() (*QueryMatch, bool)                    { return nil, false }
func (*QueryCursor) FilterPredicates(m *QueryMatch, _ []byte) *QueryMatch {
	return m
}
