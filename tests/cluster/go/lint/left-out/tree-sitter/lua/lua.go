// Package lua stands for a parser that is left out.
package lua

import sitter "github.com/smacker/go-tree-sitter"

func GetLanguage() *sitter.Language { return nil }
