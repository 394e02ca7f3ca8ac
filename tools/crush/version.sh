#!/bin/bash
npm view '@charmland/crush' version
