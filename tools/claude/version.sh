#!/bin/bash
npm view '@anthropic-ai/claude-code' version
