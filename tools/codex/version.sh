#!/bin/bash
npm view '@openai/codex' version
